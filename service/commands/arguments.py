"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated, Literal

from tyro import conf

A_RUN = "a run directory, or the name of a run below ./runs"

Run = Annotated[str, conf.Positional, conf.arg(metavar="RUN", help=A_RUN)]
NewestRun = Annotated[
    str | None, conf.Positional, conf.arg(metavar="[RUN]", help=f"{A_RUN}; by default the newest there")
]
Worker = Annotated[str, conf.Positional, conf.arg(metavar="WORKER", help="its name, as `workers` lists it")]
Json = Annotated[bool, conf.arg(help="print the result as JSON")]
Config = Annotated[
    Path,
    conf.Positional,
    conf.arg(metavar="CONFIG.toml|RUN", help=f"a configuration; or, to resume, {A_RUN}"),
]
Overrides = Annotated[
    tuple[str, ...],
    conf.UseAppendAction,
    conf.arg(name="set", metavar="KEY=VALUE", help="change one key, e.g. estimators.0.std=0.02"),
]
BackendKind = Annotated[
    Literal["ray", "local"],
    conf.arg(help="where workers run: as Ray actors, or as processes of this machine"),
]
Address = Annotated[
    str | None, conf.arg(metavar="auto|HOST:PORT", help="of a running Ray cluster; by default one is started")
]
Learner = Annotated[
    str, conf.arg(metavar="HOST:PORT", help="data plane of the learner, see endpoints.json, or of a relay")
]
TokenFile = Annotated[
    Path | None, conf.arg(metavar="FILE", help="the run's token-worker; by default $UNSPOOL_TOKEN_FILE")
]
Takeover = Annotated[
    bool,
    conf.arg(help="take the run over from a learner that holds it and hangs or is unreachable"),
]

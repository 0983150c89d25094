"""The library's registry: the names and locations of its components.

Configurations use these names, and so do the attributes of the package (`unspool.TruncatedPES`). Modules are
imported only when a name is used. Components of other packages need no entry: configurations refer to them as
`package.module:Class`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


def _in(module: str, *names: str) -> dict[str, str]:
    return {name: f"unspool.{module}:{name}" for name in names}


_LEARNED_OPTIMIZERS = {
    **_in("learned_optimizers.base", "LearnableSGD", "LearnableSGDM", "LearnableAdam"),
    **_in("learned_optimizers.mlp_lopt", "MLPLOpt"),
}

_ESTIMATORS = {
    **_in("outer_trainers.full_es", "FullES"),
    **_in("outer_trainers.full_grad", "FullGrad"),
    **_in("outer_trainers.truncated_es", "TruncatedES"),
    **_in("outer_trainers.truncated_es_shared_noise", "TruncatedESSharedNoise", "NRES", "ESSingle"),
    **_in("outer_trainers.gpes", "GPES"),
    **_in("outer_trainers.dodge", "DODGE"),
    **_in("outer_trainers.truncated_pes", "TruncatedPES"),
    **_in("outer_trainers.truncated_grad", "TruncatedGrad"),
}

_TRUNCATION_SCHEDULES = _in(
    "outer_trainers.truncation_schedule",
    "ConstantTruncationSchedule",
    "NeverEndingTruncationSchedule",
    "LogUniformLengthSchedule",
    "ScheduledTruncationSchedule",
)

_TASKS = {
    **_in(
        "tasks.quadratics",
        "QuadraticTask",
        "NoisyMeanQuadraticTask",
        "BatchQuadraticTask",
        "LogQuadraticTask",
        "SumQuadraticTask",
        "FixedDimQuadraticFamily",
        "FixedDimQuadraticFamilyData",
        "NoisyQuadraticFamily",
    ),
    **_in("tasks.fixed.image_mlp", "ImageMLP_Digits8_Relu32", "ImageMLP_FashionMnist8_Relu32"),
}

_SYSTEMS = {
    **_in("systems.influence_balancing", "InfluenceBalancing"),
    **_in("systems.learning_rate_ramp", "LearningRateRamp"),
    **_in("systems.lorenz", "LorenzFit"),
    **_in("systems.pendulum", "PendulumSwingUp"),
}

NAMES_BY_KIND: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "LearnedOptimizer": _LEARNED_OPTIMIZERS,
        "GradientEstimator": _ESTIMATORS,
        "TruncationSchedule": _TRUNCATION_SCHEDULES,
        "TruncatedStep": _SYSTEMS,
        "TaskFamily": _TASKS,
        "Task": _TASKS,
    }
)
"""`"module:attribute"` by component name, grouped by the name of the abstract class."""

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {name: place for names in NAMES_BY_KIND.values() for name, place in names.items()}
)
"""`"module:attribute"` by component name, for all components."""

PUBLIC_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **NAMES,
        **_in("eval_training", "multi_task_training_curves", "single_task_training_curves"),
        **_in("experiment", "Experiment"),
        **_in("exported", "load_exported"),
        **_in("learned_optimizers.base", "LearnedOptimizer", "learned_optimizer_from_opt"),
        **_in("optimizers.base", "SGD", "SGDM", "Adam", "AdamW", "GradientClipOptimizer", "NAdamW"),
        **_in("optimizers.base", "Optimizer", "OptaxOptimizer", "RMSProp", "opt_to_optax_opt"),
        **_in("outer_trainers.gradient_learner", "GradientEstimator", "GradientEstimatorOut"),
        **_in("outer_trainers.gradient_learner", "GradientLearner", "SingleMachineGradientLearner"),
        **_in("outer_trainers.gradient_learner", "OuterState", "WorkerWeights"),
        **_in("outer_trainers.lopt_truncated_step", "VectorizedLOptTruncatedStep"),
        **_in("outer_trainers.truncated_step", "TruncatedStep", "TruncatedUnrollOut"),
        **_in("outer_trainers.truncated_step", "VectorizedStep", "VectorizedTruncatedStep"),
        **_in("outer_trainers.truncation_schedule", "TruncationSchedule"),
        **_in("tasks.base", "Task", "TaskFamily", "single_task_to_family"),
        **_in("tasks.datasets.base", "Datasets", "Split"),
    }
)
"""The public names of `unspool`: all components, abstract classes, and related functions."""

"""The generated code matches the .proto files, and released field numbers keep their meaning."""

import json
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto

from protos import generate
from protos.unspool.v1 import admin_pb2, common_pb2, learner_pb2

GOLDEN = Path(__file__).parent / "field_numbers.json"
FILES = (common_pb2.DESCRIPTOR, learner_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR)


def field_numbers(file: FileDescriptor) -> dict[str, str]:
    """`message.field -> number and type`, as far as the wire can tell them apart."""
    found: dict[str, str] = {}
    pending = list(file.message_types_by_name.values())
    while pending:
        message = pending.pop()
        pending += message.nested_types
        for field in message.fields:
            found[field.full_name] = f"{field.number} {field.type} {'many' if field.is_repeated else 'one'}"
    for enum in file.enum_types_by_name.values():
        found |= {f"{enum.full_name}.{value.name}": str(value.number) for value in enum.values}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file.name).stem)
def test_no_field_changes_its_number_or_type(file: FileDescriptor) -> None:
    golden: dict[str, str] = json.loads(GOLDEN.read_text())[file.name]
    now = field_numbers(file)
    assert {name: now.get(name) for name in golden} == golden


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        ("JoinRequest", {3, 10}),
        ("JoinReply", {11}),
        ("GradientEstimatorOut", {10, 12}),
        ("UnrollInfo", {1, 2}),
    ],
)
def test_the_numbers_of_deleted_fields_are_not_used_again(message: str, numbers: set[int]) -> None:
    described = DescriptorProto()
    learner_pb2.DESCRIPTOR.message_types_by_name[message].CopyToProto(described)
    reserved = {number for span in described.reserved_range for number in range(span.start, span.end)}
    assert reserved == numbers


def test_the_committed_code_is_what_the_protos_say() -> None:
    assert generate.differences() == []


def test_a_difference_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "differences", lambda: ["protos/unspool/v1/common_pb2.py"])
    assert generate.main(["--check"]) == 1
    assert "protos/unspool/v1/common_pb2.py" in capsys.readouterr().err

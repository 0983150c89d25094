"""Several devices for one lane: its tasks are divided among them, and theta is on each.

Two mechanisms share the work. The inner steps, and what initialises them, are `jax.shard_map` over tasks
(`over_tasks`): a device computes the tasks that it has, asks no other for anything, and skips a reset that
none of its own tasks needs. What an estimator computes around the steps (perturbations, loss differences, the
gradient) is left to XLA's partitioner, to which it is one program on arrays with a task axis: estimators do
not know of devices, and their sums over tasks become a few exchanges at the end of an estimate.

Either alone is worse. With `shard_map` around whole estimates, every estimator would have to say which of its
sums go over devices, and which keys belong to which. With the partitioner alone, devices would wait for each
other at every inner step to learn whether any of them resets, and an estimator that begins each estimate from
scratch (FullES) would not be divided at all.

Random bits do not depend on the mesh (`jax_threefry_partitionable`, JAX's default), so an estimate is that of
one device up to rounding.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unspool.types import PyTree

TASKS = "tasks"
"""The mesh's one axis."""

Tree = TypeVar("Tree")


def task_mesh(
    devices: Sequence[jax.Device],  # pyright: ignore[reportInvalidTypeForm] (JAX declares a variable)
) -> Mesh:
    """The mesh of `devices` over which tasks are divided."""
    if not devices:
        raise ValueError("task_mesh(devices=[]): give at least one device")
    return Mesh(np.asarray(devices), (TASKS,))


def check_divisible(num_tasks: int, num_devices: int) -> None:
    """Refuses tasks that cannot be dealt out evenly.

    Raises:
        ValueError: names both numbers and the next ones that fit.
    """
    if num_tasks % num_devices:
        fitting = num_devices * -(-num_tasks // num_devices)
        raise ValueError(
            f"num_tasks={num_tasks} cannot be divided evenly among {num_devices} devices: take "
            f"num_tasks={fitting}, or {math.gcd(num_tasks, num_devices)} of the devices"
        )


def over_tasks(fn: Callable[..., Any], in_axes: Sequence[int | None]) -> Callable[..., Any]:
    """`jax.vmap(fn, in_axes)` over tasks, each device of the mesh in force mapping over its own.

    Args:
        fn: of one task; a pure function.
        in_axes: 0 for arguments whose leaves lead with `[num_tasks]`, None for those that all tasks share.
    """
    mapped = jax.vmap(fn, in_axes=tuple(in_axes))
    if TASKS not in jax.sharding.get_abstract_mesh().axis_names:
        return mapped
    in_specs = tuple(_spec() if axis is None else _spec(TASKS) for axis in in_axes)
    # Unchecked: else a system's own scans would have to mark what differs between devices.
    return jax.shard_map(mapped, in_specs=in_specs, out_specs=_spec(TASKS), check_vma=False)


def dividing_tasks(num_tasks: int, mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """While traced under this, `over_tasks` divides the tasks over `mesh`; None: they stay together.

    Raises:
        ValueError: they cannot be divided evenly.
    """
    if mesh is None:
        return contextlib.nullcontext()
    check_divisible(num_tasks, mesh.size)
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def on_each_device(tree: Tree, mesh: Mesh | None) -> Tree:
    """Puts all of `tree` on every device of `mesh`, or on the default device."""
    placed: Tree = jax.device_put(tree, None if mesh is None else shared(mesh))
    return placed


def shared(mesh: Mesh) -> NamedSharding:
    """The layout of what every device has all of."""
    return NamedSharding(mesh, _spec())


def by_task(tree: PyTree, num_tasks: int, mesh: Mesh, axis: int = 0) -> PyTree:
    """The layouts of the leaves of `tree` that put a task's part where the task is computed.

    A leaf without a multiple of `num_tasks` along `axis` belongs to all tasks, and is on every device.

    Raises:
        ValueError: the tasks cannot be divided evenly over `mesh`.
    """
    check_divisible(num_tasks, mesh.size)
    divided = NamedSharding(mesh, _spec(*(None,) * axis, TASKS))

    def layout(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        return divided if len(shape) > axis and shape[axis] % num_tasks == 0 else shared(mesh)

    return jax.tree.map(layout, tree)


def _spec(*axes: str | None) -> PartitionSpec:
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]  # JAX has no types for it

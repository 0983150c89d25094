"""Several devices for one lane: its tasks are divided among them, and theta is replicated.

Two mechanisms are combined. The inner steps and their initialisation use `jax.shard_map` over tasks
(`over_tasks`): each device computes its own tasks without communication, and skips a reset that none of its
tasks needs. The computations around the steps (perturbations, loss differences, the gradient) are partitioned
by XLA as one program on arrays with a task axis. Estimators contain no code for devices, and their sums over
tasks become a few collectives at the end of an estimate.

Either mechanism alone is worse. With `shard_map` around whole estimates, every estimator would have to
specify which sums run over devices and how keys are divided. With the partitioner alone, devices would
synchronise at every inner step to decide whether any of them resets, and an estimator that starts each
estimate from scratch (FullES) would not be divided at all.

Random bits do not depend on the mesh (`jax_threefry_partitionable`, JAX's default), so an estimate equals
that of one device up to rounding.
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
"""The name of the mesh's only axis."""

Tree = TypeVar("Tree")


def task_mesh(
    devices: Sequence[jax.Device],  # pyright: ignore[reportInvalidTypeForm] (JAX declares a variable)
) -> Mesh:
    """Return the mesh of `devices` over which tasks are divided."""
    if not devices:
        raise ValueError("task_mesh(devices=[]): give at least one device")
    return Mesh(np.asarray(devices), (TASKS,))


def check_divisible(num_tasks: int, num_devices: int) -> None:
    """Check that tasks can be divided evenly over devices.

    Raises:
        ValueError: names both numbers and the nearest valid ones.
    """
    if num_tasks % num_devices:
        fitting = num_devices * -(-num_tasks // num_devices)
        raise ValueError(
            f"num_tasks={num_tasks} cannot be divided evenly among {num_devices} devices: use "
            f"num_tasks={fitting}, or {math.gcd(num_tasks, num_devices)} of the devices"
        )


def over_tasks(fn: Callable[..., Any], in_axes: Sequence[int | None]) -> Callable[..., Any]:
    """Return `jax.vmap(fn, in_axes)` over tasks, divided over the devices of the current mesh.

    Args:
        fn: a pure function of one task.
        in_axes: 0 for arguments whose leaves lead with `[num_tasks]`, None for those that all tasks share.
    """
    mapped = jax.vmap(fn, in_axes=tuple(in_axes))
    if TASKS not in jax.sharding.get_abstract_mesh().axis_names:
        return mapped
    in_specs = tuple(_spec() if axis is None else _spec(TASKS) for axis in in_axes)
    # With check_vma, a system's own scans would have to mark values that vary over devices.
    return jax.shard_map(mapped, in_specs=in_specs, out_specs=_spec(TASKS), check_vma=False)


def dividing_tasks(num_tasks: int, mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which traced calls of `over_tasks` divide tasks over `mesh`, if it is not None.

    Raises:
        ValueError: the tasks cannot be divided evenly.
    """
    if mesh is None:
        return contextlib.nullcontext()
    check_divisible(num_tasks, mesh.size)
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def on_each_device(tree: Tree, mesh: Mesh | None) -> Tree:
    """Replicate `tree` on every device of `mesh`, or put it on the default device."""
    placed: Tree = jax.device_put(tree, None if mesh is None else shared(mesh))
    return placed


def shared(mesh: Mesh) -> NamedSharding:
    """Return the sharding of replicated arrays."""
    return NamedSharding(mesh, _spec())


def by_task(tree: PyTree, num_tasks: int, mesh: Mesh, axis: int = 0) -> PyTree:
    """Return the shardings for the leaves of `tree` that place the data of a task on its device.

    A leaf whose size along `axis` is not a multiple of `num_tasks` is shared by all tasks and replicated.

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
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]  # no types in JAX

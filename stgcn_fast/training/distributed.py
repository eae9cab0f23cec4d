"""One process or several: what ``torchrun`` says in the environment, before Lightning reads it."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

__all__ = ["barrier", "is_main", "local_world_size", "rank", "start", "stop", "world_size"]


def rank() -> int:
    """Rank of this process, 0 when alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes started by ``torchrun``, 1 when alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Number of processes on this machine, 1 when alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def start(device: str) -> bool:
    """Join the process group early, so that data can be prepared once and waited for.

    Args:
        device: ``cpu`` or ``cuda``; decides between gloo and nccl.

    Returns:
        Whether this call joined it, so that the caller is to leave it.
    """
    if world_size() == 1 or dist.is_initialized():
        return False
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return True


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()

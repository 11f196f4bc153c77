"""Which process this is, and whether another one on the same machine has ended."""

import os
from pathlib import Path
from typing import Optional, Tuple

__all__ = ["is_gone", "own_identity"]

_PROC = Path("/proc")


def own_identity() -> str:
    """Return what tells this process from all others that ever were, also after its number was given to another.

    That is the boot, the namespace of the number (each container has its own), the number, and when the process
    started. Where the operating system does not tell all of that the identity is empty, and nothing can be known.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""
    pid = os.getpid()
    state = _state_and_start(pid)
    return "" if state is None else f"{boot} {namespace} {pid} {state[1]}"


def is_gone(identity: str) -> bool:
    """Tell whether it is certain that the process with this identity has ended.

    Args:
        identity: What `own_identity` returned in that process. One of another boot or another namespace is never said
            to be gone, because nobody can look there.
    """
    world, _, process = identity.partition("] ")
    if not process or world != own_identity().partition("] ")[0]:
        return False
    pid, _, started = process.partition(" ")
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # It is there, and belongs to another user.
        pass
    state = _state_and_start(int(pid))
    # A process that was killed stays as a zombie until its parent has looked.
    return state is not None and (state[0] in "ZX" or state[1] != started)


def _state_and_start(pid: int) -> Optional[Tuple[str, str]]:
    """Return a process's state, a letter, and when it started, in ticks since the boot; None where that is hidden."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may have blanks and parentheses of its own.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]

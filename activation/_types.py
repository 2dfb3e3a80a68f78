"""Types that public signatures name, without the typing module, which takes longer to load than the rest.

They exist at run time as well as for type checkers, so that ``typing.get_type_hints()`` can read the signatures.
"""

from __future__ import annotations

import os
from _collections_abc import Mapping  # collections.abc, without the package around it

from ._files import File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn as NoReturn
    from typing import Protocol, TypeAlias
    from typing import Self as Self

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    StrOrBytes: TypeAlias = str | bytes
    StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Environment: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Mapping[StrOrBytes, StrOrBytes]
    Passable: TypeAlias = File | tuple[str, int | HasFileno]
else:

    class HasFileno:
        """Anything that has a ``fileno()``."""

    StrOrBytes = str | bytes
    StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Environment = Mapping[str, str] | Mapping[bytes, bytes] | Mapping[StrOrBytes, StrOrBytes]
    Passable = File | tuple[str, int | HasFileno]
    # Forward references: get_type_hints() evaluates them, and typing is loaded by then.
    NoReturn = "__import__('typing').NoReturn"
    Self = "__import__('typing').Self"

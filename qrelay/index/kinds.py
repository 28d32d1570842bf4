"""How vectors are stored and searched, by name; `stored` and `ann` do it."""

from __future__ import annotations

from typing import Final, Literal

Form = Literal["float32", "float16", "int8"]
FORMS: Final[tuple[Form, ...]] = ("float32", "float16", "int8")
Kind = Literal["exact", "hnsw", "ivf-sq", "ivf-pq"]
KINDS: Final[tuple[Kind, ...]] = ("exact", "hnsw", "ivf-sq", "ivf-pq")
AnyKind = Literal["auto"] | Kind

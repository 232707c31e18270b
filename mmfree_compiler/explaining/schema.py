"""What an explanation holds: frozen records that are written as JSON and read from it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from mmfree_compiler.errors import InputError
from mmfree_compiler.explaining.drawn import NoteLine, ProgramGraph, Record
from mmfree_compiler.wording import counted

Table = dict[str, dict[str, int | float | str]]  # the name of a row -> its facts


class ModelFacts(Record):
    """What was compiled. `layers` and `parameters` are None where they are unknown.

    `kind` is "lm" for a language model, "module" for another one, and "eager" for a module that
    runs partly in torch.
    """

    title: str
    kind: str
    layers: int | None = None
    parameters: int | None = None
    ternary_parameters: int | None = None
    state_bytes: int = 0  # of one sequence
    configuration: dict[str, str] = Field(default_factory=dict)


class Snapshot(Record):
    """A graph or a Program between two passes. `nodes` counts the calls of ops, `ops` by name.

    Where the text repeats, as it does layer after layer, `text` has the first of the repetitions
    and a line that says how often it follows; `lines` is the number of lines of the whole text.
    """

    form: Literal["graph", "program"]
    nodes: int
    ops: dict[str, int]
    text: str
    lines: int


class Difference(Record):
    """How far a result is from the module's: `largest` in parts of the largest value of its row.

    None: it was not compared, for the `reason`.
    """

    largest: float | None = None
    reason: str = ""


class PassStep(Record):
    """A pass, in the order in which they ran.

    `stage` is "graph", "program", or the target whose own pass it is; "model" for what was read,
    and "parts" for the passes on the compiled parts of an eager model. `purpose` is a sentence or
    more on what it does to any model, `notes` are what it did to this one. `before` and `after` are
    indices of `Explanation.snapshots`; None where only the notes were kept.
    """

    name: str
    stage: str
    purpose: str
    notes: tuple[NoteLine, ...] = ()
    before: int | None = None
    after: int | None = None
    seconds: float | None = None
    difference: Difference = Difference()


class Ceilings(Record):
    """What bounds any program on the target's machine, per second. `how` says where it is from."""

    how: str
    bytes_per_second: float | None = None
    integer_operations_per_second: float | None = None
    float_operations_per_second: float | None = None


class TargetPart(Record):
    """What was made for one target.

    `weight_bytes` are those of ternary weights in the layout that the build for this machine reads,
    `bits_per_weight` the bits that each takes. `embedding_bytes` are of tables, `other_bytes` of
    all else. `memory` is the memory plan, `kernels` the code that was made and what was chosen for
    it.

    `decode_us` is the time of a whole decode step, with `threads` threads where it takes any, and
    `roofline_us` the least that the ceilings allow for it. `how` says what made all times:
    "measured", or a model of hardware that is not here. `others_us` are times beside those of ops;
    where parts are `overlapping`, an op has the time that is its own alone. `missing` says why
    something is not known.
    """

    target: str
    builds: tuple[str, ...]
    runs_here: str  # the build that does, "" for none
    weight_bytes: int = 0
    embedding_bytes: int = 0
    other_bytes: int = 0
    bits_per_weight: float | None = None
    program: ProgramGraph | None = None
    memory: Table = Field(default_factory=dict)
    kernels: Table = Field(default_factory=dict)
    ceilings: Ceilings | None = None
    how: str = ""
    overlapping: bool = False
    decode_us: float | None = None
    roofline_us: float | None = None
    others_us: dict[str, float] = Field(default_factory=dict)
    threads: int | None = None
    missing: tuple[str, ...] = ()


class Coverage(Record):
    """How often an op is in the final graph, and the kinds of target that can lower it."""

    op: str
    count: int
    targets: tuple[str, ...]


class FloatProduct(Record):
    """A product of float matrices that is left: it runs in floating point, not as additions.

    `module` and `source` are the part and the line of the model that it comes from: "net.2
    (Linear)", "net.py:9: y = self.net(x)". What is not known is "".
    """

    op: str
    node: str
    module: str
    source: str
    why: str


class Audit(Record):
    """The search for products of float matrices in what is left of the model.

    `examined` is the number of calls that were looked at, `where` what they are part of. Without
    `products`, no product of float matrices is left.
    """

    where: str
    examined: int
    products: tuple[FloatProduct, ...] = ()


class Explanation(Record):
    """What the compiler did to a model, and what came out of it; str() is a short text.

    `summary` is one sentence. `missing` says what could not be explained, and what would be needed.
    `failed` is the error that ended the compilation, "" without one.
    """

    schema_version: Literal[1] = 1
    model: ModelFacts
    summary: str = ""
    passes: tuple[PassStep, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    targets: tuple[TargetPart, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    kinds: tuple[str, ...] = ()  # the kinds of target that `coverage` was looked up for
    audit: Audit | None = None
    missing: tuple[str, ...] = ()
    failed: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {None, *range(len(self.snapshots))}
        if not {index for step in self.passes for index in (step.before, step.after)} <= known:
            raise ValueError("a pass names a snapshot that is not there")
        return self

    def __str__(self) -> str:
        return self.text()

    def text(self, notes: bool = False) -> str:
        """The explanation in 80 columns; `notes` adds what each pass did, node by node."""
        from mmfree_compiler.explaining.text import text

        return text(self, notes)

    def json(self) -> str:  # type: ignore[override]  # pydantic's own is deprecated
        """The explanation as a JSON document."""
        return self.model_dump_json(indent=1)

    def html(self) -> str:
        """The explanation as one HTML page, about 2.5 MB, which opens without a network."""
        from mmfree_compiler.explaining.page import page

        return page(self)

    @classmethod
    def from_json(cls, document: str | bytes) -> Self:
        """What `json` wrote. Raises InputError on anything else."""
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            cause = f"is not one: {counted(error.error_count(), 'fault')}"
            hint = "Write one with mmfree explain --format json"
            raise InputError("explanation", cause, hint) from error

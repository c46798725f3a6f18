"""What was found of one engine."""

from dataclasses import dataclass, field

from nemotrt.build.check.result.fault import Fault
from nemotrt.build.check.result.rows import Comparison
from nemotrt.charts.number import number


@dataclass(slots=True)
class EngineCheck:
    """What was found so far; what is not known yet is None.

    `reference` says what the logits were compared with; a rate is None where nothing was timed.
    """

    engine: str
    backend: str
    gpu: str | None
    precision: str
    reference: str | None = None
    num_rows: int = 0  # of logits that were compared
    comparison: Comparison | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    decode_sequences: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What a person reads."""
        target = f"for {self.gpu}" if self.gpu else "for the CPU"
        found = [f"engine     {self.engine}: {self.backend}, {self.precision}, {target}"]
        if self.comparison:
            error, bound = self.comparison.error, self.comparison.bound
            found.append(f"logits     off by {error:.2g} at most, of {self.num_rows} rows")
            found.append(f"bound      {bound:.2g}: {self.comparison.why}")
            found.append(f"against    {self.reference}")
        if self.prefill_tokens_per_s is not None:
            found.append(f"prefill    {number(self.prefill_tokens_per_s)} tokens/s, one chunk")
        if self.decode_tokens_per_s is not None:
            rate, many = self.decode_tokens_per_s, self.decode_sequences
            found.append(f"decode     {number(rate)} tokens/s, {many} sequences")
        return found

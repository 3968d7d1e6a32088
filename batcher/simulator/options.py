"""What can be set on a simulator, as a value and as command-line arguments.

The arguments are made here and read in `serve`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """How the simulator behaves. Raises `ValueError` for a value that makes no sense."""

    #: median time until an answer
    latency_s: float = 0.05
    #: sigma of the log-normal latency; 0 makes every answer take `latency_s`
    spread: float = 0.3
    #: requests answered at the same time; any more are refused with 429. None: no limit
    max_concurrency: int | None = None
    #: YAML file that says which prompts go wrong and how, see `script`
    script: Path | None = None
    #: file that gets one JSON line per request and one per answer, see `ledger`
    ledger: Path | None = None
    #: another seed gives other texts and latencies
    seed: int = 0
    #: environment variable that holds the key every request must bring
    api_key_env: str | None = None
    #: the only model served; None serves any
    model: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.latency_s <= 86400:
            raise ValueError("latency_s must be between 0 and 86400")
        if not 0 <= self.spread <= 5:
            raise ValueError("spread must be between 0 and 5")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ValueError("max_concurrency must be at least 1")
        for name in ("api_key_env", "model"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} must not be empty")

    def arguments(self) -> list[str]:
        """The arguments that give `python -m batcher.simulator` these options; paths are made absolute."""
        return [f"--{flag}={value}" for flag, value in self._flags().items() if value is not None]

    def _flags(self) -> dict[str, object]:
        return {
            "latency": self.latency_s,
            "spread": self.spread,
            "max-concurrency": self.max_concurrency,
            "script": self.script and Path(self.script).absolute(),
            "ledger": self.ledger and Path(self.ledger).absolute(),
            "seed": self.seed,
            "api-key-env": self.api_key_env,
            "model": self.model,
        }

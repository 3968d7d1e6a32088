"""The job: `job.yaml` becomes a `Job`, or a list of problems with file, line and column."""

from batcher.job.load import load_job, read_key, with_input
from batcher.job.model import Endpoint, Engine, Input, Job, Limits, Output, Simulator, Timeouts

__all__ = [
    "Endpoint",
    "Engine",
    "Input",
    "Job",
    "Limits",
    "Output",
    "Simulator",
    "Timeouts",
    "load_job",
    "read_key",
    "with_input",
]

"""The job: `job.yaml` becomes a `Job`, or a list of problems with file, line and column."""

from batcher.job.load import Endpoint, Engine, Input, Job, Limits, Output, Simulator, Timeouts, load_job, read_key

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
]

"""Built-in synthetic data: simulated people doing the six KTH actions. No recordings, no download."""

from stgcn_fast.data.synthetic.actions import KTH_CLASSES
from stgcn_fast.data.synthetic.kth import (
    KTH_SCENARIOS,
    KTH_SUBJECTS,
    SimulatedMotion,
    generate_kth,
    simulate_kth,
)

__all__ = [
    "KTH_CLASSES",
    "KTH_SCENARIOS",
    "KTH_SUBJECTS",
    "SimulatedMotion",
    "generate_kth",
    "simulate_kth",
]

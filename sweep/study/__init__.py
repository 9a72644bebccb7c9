"""A study: its YAML file, everything that can be wrong with it, and its seeds, arms and runs.

Nothing here knows Ray, Optuna or MLflow.
"""

from sweep.study.arms import Candidate as Candidate
from sweep.study.arms import Phase as Phase
from sweep.study.arms import ResolvedArm as ResolvedArm
from sweep.study.contents import Values as Values
from sweep.study.files import find as find
from sweep.study.files import from_declared as from_declared
from sweep.study.files import load as load
from sweep.study.files import shipped as shipped
from sweep.study.schema import schema as schema
from sweep.study.study import Study as Study

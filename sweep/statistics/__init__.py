"""Statistics of gains over a baseline: pure functions of arrays."""

from sweep.statistics.detection import POWER as POWER
from sweep.statistics.detection import Tested as Tested
from sweep.statistics.detection import equivalence_margin as equivalence_margin
from sweep.statistics.detection import minimum_detectable_gain as minimum_detectable_gain
from sweep.statistics.detection import pairs_for_gain as pairs_for_gain
from sweep.statistics.detection import pairs_needed as pairs_needed
from sweep.statistics.detection import pairs_needed_at_any_time as pairs_needed_at_any_time
from sweep.statistics.detection import power as power
from sweep.statistics.detection import smallest_p_value as smallest_p_value
from sweep.statistics.paired import Comparison as Comparison
from sweep.statistics.paired import Gain as Gain
from sweep.statistics.paired import Looks as Looks
from sweep.statistics.paired import gain_so_far as gain_so_far
from sweep.statistics.paired import holm as holm
from sweep.statistics.paired import paired_comparison as paired_comparison
from sweep.statistics.paired import two_way_standard_error as two_way_standard_error
from sweep.statistics.sequential import sequential_interval as sequential_interval
from sweep.statistics.sequential import sequential_p_value as sequential_p_value
from sweep.statistics.tasks import AcrossTasks as AcrossTasks
from sweep.statistics.tasks import across_tasks as across_tasks
from sweep.statistics.tasks import tasks_needed as tasks_needed
from sweep.statistics.tuning import tuning_curve as tuning_curve
from sweep.statistics.variation import Components as Components
from sweep.statistics.variation import components as components
from sweep.statistics.variation import failure_limits as failure_limits
from sweep.statistics.variation import upper_deviation as upper_deviation

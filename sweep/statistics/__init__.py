"""What can be said of gains over a baseline: pure functions of arrays."""

from sweep.statistics.paired import Comparison as Comparison
from sweep.statistics.paired import holm as holm
from sweep.statistics.paired import minimum_detectable_gain as minimum_detectable_gain
from sweep.statistics.paired import paired_comparison as paired_comparison
from sweep.statistics.paired import pairs_needed as pairs_needed
from sweep.statistics.paired import smallest_p_value as smallest_p_value

"""torchvision without its compiled operators, for benchmarks and tests that import it themselves."""

from fedd.baselines.packages import define_missing_operators as define_where_missing

__all__ = ["define_where_missing"]

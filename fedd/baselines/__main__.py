"""Say in one line if the baselines can't be run here, and what to install; exits with 1 then."""

import sys

from fedd.baselines.packages import baselines_problem

if problem := baselines_problem():
    sys.exit(f"Installed, but 'fedd reproduce' and 'fedd baseline' can't run baselines: {problem}")

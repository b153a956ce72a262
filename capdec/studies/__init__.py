"Studies: the experiments whose figures the lessons show, each to be run as `python -m capdec.studies.NAME`"

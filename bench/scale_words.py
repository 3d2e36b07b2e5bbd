"""What the page of ``bench.scale_model`` says between its tables."""

INTRODUCTION = """# Scale on paper

A model, made by `python -m bench.scale_model --out docs/scale.md` (`--set NAME=VALUE` for other prices and lengths):
rates that were measured on small runs, times counts. Nothing of these sizes has been run but the driver over a million
media ([driver.md](driver.md)). Core hours are of the processor the rates were measured on; hours are those of the nodes
in the table, which are busy for the share of time that is assumed. Stages follow each other: the hours add up."""

BOTTLENECKS = ""

END = ""

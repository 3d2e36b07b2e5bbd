"""What the page of ``bench.scale_model`` says between its tables; figures in braces are those of the three sizes."""

INTRODUCTION = """# Scale on paper

A model, made by `python -m bench.scale_model --out docs/scale.md` (`--set NAME=VALUE` for other prices and lengths):
rates that were measured on small runs, times counts. Nothing of these sizes has been run but the driver over a million
media ([driver.md](driver.md)). Core hours are of the processor the rates were measured on, clips of 1280x720; larger
frames take longer to decode, not to detect. Hours are those of the nodes in the table, busy for the share of time that
is assumed, and without start-up (half a minute a command). Stages follow each other: the hours add up."""

BOTTLENECKS = """## What is in the way first, and what is done about it

**1,000 videos.** Nothing: {0.detect_core_h:.1f} core hours of detection, one machine. A laptop of four cores takes
{laptop_h:.1f} hours. Start-up of the five commands is as long as all mining and embedding.

**100,000 videos.** The cores that detect: {1.detect_core_h:,.0f} core hours, {detect_share:.0f} % of all. Chunks are
independent, so the hours fall with the nodes (`--scale.workers`, `--scale.decode-nodes`); `--detect.sampling keyframe`
looks at fewer frames, `--detect.base-interval 1s` at half. Reading {1.media_gb:,.0f} GB takes {1.read_h:.1f} of the
{1.detect_h:.1f} hours where storage gives each node what is assumed: below a seventh of that, storage is what all wait
for. Objects: {1.objects:,.0f}, of which a chunk writes five. Pretraining is next, {1.train_gpu_h:.1f} GPU hours.

**10,000,000 videos.** Three things before the cores:

- *Objects.* Chunks as they are asked for would be {plain_chunks:.1f} million, each of five objects and with a record
  to read at every start. A call plans about {max_chunks:,} chunks at the most, so each holds {2.chunk_s:,.0f} s of
  footage, {chunk_min:.0f} core minutes, the most that a killed worker loses. Plans are {parts:,} files instead of one
  for each chunk.
- *Identifying.* The first and last MiB of every file are read, {2.hashed_gb:,.0f} GB, and again at every call. It is
  done by tasks on all nodes, {hash_h:.1f} hours if it were all they read; on one node it would be {hash_one_h:.0f}.
  Not done: remembering ids by address, size and time of change, which would leave a second call nothing to read.
- *The driver.* Memory grows with media, {2.driver_gb:.0f} GB: it wants a head node of twice that. Listing, planning
  and recording take {2.driver_h:.1f} hours beside the {2.detect_h:.1f} of detection, half of them before the first
  chunk begins. Not done: planning while chunks are already worked on. A Parquet manifest may have five million rows:
  split it, or call once for each part of the year, which bounds all three.

Then the cores, {2.detect_core_h:,.0f} core hours. Not measured at this size, and known from the code: the driver of
`mine` keeps a few Python objects for each medium (several GB) and reads the Media table of every chunk in turn, and
`pretrain` holds the table of its pairs in every worker. Exact search over all crops ({2.vectors_gb:,.0f} GB of vectors)
fits no machine: embed and index what is labelled, or one camera's surroundings."""

END = """Left out: transfer between regions, the head node, retries, people. Requests count what is written once and
each read three times. Prices are examples, and stand above to be set otherwise."""

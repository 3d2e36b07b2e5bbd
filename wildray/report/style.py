"""The look of the page: one style sheet, light and dark, on screen and in print.

Out: ``STYLE``. It is Python, not a file beside the code, so that it cannot be left out of a package.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f7f6f1; --card: #ffffff; --ink: #20241f; --soft: #5d645b; --line: #dcdad0; --accent: #2b6a4d;
  --tint: #e9f0ea; --warn: #8a4b00; --warn-tint: #fdf1de; --right: #1d7f55; --wrong: #b3372f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151814; --card: #1d211c; --ink: #e7e6df; --soft: #a3a99f; --line: #363b34; --accent: #7fc4a0;
    --tint: #22302a; --warn: #f0bd77; --warn-tint: #33291a; --right: #58c795; --wrong: #f08277;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Inter", "Segoe UI", "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, system-ui, sans-serif;
}
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; }
h1 {
  font: 600 2.3rem/1.15 Charter, "Iowan Old Style", Georgia, "Noto Serif", "Liberation Serif", serif;
  margin: 0 0 .4rem; letter-spacing: -.01em; overflow-wrap: anywhere;
}
header p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1.4rem 0 0; }
nav a {
  color: var(--accent); background: var(--tint); text-decoration: none; padding: .2rem .7rem;
  border-radius: 99px; font-size: .85rem;
}
nav a:hover, nav a:focus { text-decoration: underline; }
section { padding: 2.4rem 0 0; }
h2 {
  font: 600 1.45rem/1.2 Charter, "Iowan Old Style", Georgia, "Noto Serif", "Liberation Serif", serif;
  margin: 0 0 .3rem; padding-top: 1.1rem; border-top: 1px solid var(--line);
}
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
.how { max-width: 46rem; margin: 0 0 1.1rem; color: var(--soft); }
.missing, .note { max-width: 46rem; padding: .7rem 1rem; border-radius: .5rem; margin: .8rem 0; }
.missing { border: 1px dashed var(--line); color: var(--soft); }
.note { background: var(--warn-tint); color: var(--warn); }
code {
  font: .88em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; background: var(--tint);
  padding: .1em .35em; border-radius: .25rem; overflow-wrap: anywhere;
}
pre {
  font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-x: auto;
  padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
}
.tiles {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); gap: .7rem; margin: 0 0 1.2rem;
  padding: 0;
}
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.tile b {
  display: block; font-size: 1.6rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums;
}
.tile span { color: var(--soft); font-size: .82rem; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; min-width: min(100%, 30rem); }
th, td {
  text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; max-width: 30rem;
}
td:first-child { min-width: 4rem; }
th { color: var(--soft); font-weight: 500; font-size: .82rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.n b { font-weight: 600; }
small { color: var(--soft); }
figure { margin: 0; }
.chart {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem;
  margin: 0 0 1rem; overflow-x: auto;
}
.chart svg { display: block; width: 100%; height: auto; min-width: 36rem; }
figcaption { font-size: .8rem; line-height: 1.4; color: var(--soft); overflow-wrap: anywhere; }
.grid {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .8rem; margin: 0 0 1rem;
}
.grid.small { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .6rem;
  break-inside: avoid;
}
.card figcaption { padding: .45rem .1rem 0; }
.card figcaption b { color: var(--ink); font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 5.2rem; gap: .6rem; align-items: start; }
.pair .map { border: 1px solid var(--line); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .35rem; }
.crop {
  height: 7.6rem; display: flex; align-items: center; justify-content: center; background: var(--paper);
  border-radius: .3rem; overflow: hidden;
}
.crop img { width: 100%; height: 100%; object-fit: contain; display: block; }
.crop.gone { color: var(--soft); font-size: .8rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0 .7rem; font-variant-numeric: tabular-nums; }
.map { display: block; width: 100%; height: auto; background: var(--paper); border-radius: .3rem; }
.map .box { fill: none; stroke: var(--soft); stroke-opacity: .35; vector-effect: non-scaling-stroke; }
.map .static {
  fill: #d1495b; fill-opacity: .12; stroke: #d1495b; stroke-width: 1.5; vector-effect: non-scaling-stroke;
}
.map .first { fill: none; stroke: #3b82c4; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.map .second {
  fill: none; stroke: #d9822b; stroke-width: 1.6; stroke-dasharray: 4 2; vector-effect: non-scaling-stroke;
}
.strip {
  display: grid; grid-template-columns: repeat(9, minmax(4.6rem, 1fr)); gap: .4rem; margin: 0 0 .9rem;
  break-inside: avoid;
}
.strip figure {
  border: 3px solid var(--line); border-radius: .5rem; overflow: hidden; background: var(--card);
}
.strip .crop { height: 5.6rem; border-radius: 0; }
.strip figcaption { padding: .2rem .35rem .3rem; font-size: .72rem; line-height: 1.3; }
.strip .query { border-color: var(--ink); }
.strip .right { border-color: var(--right); }
.strip .right b { color: var(--right); }
.strip .wrong { border-color: var(--wrong); border-style: dashed; }
.strip .wrong b { color: var(--wrong); }
.strips { overflow-x: auto; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em; vertical-align: -.05em; }
details summary { cursor: pointer; color: var(--accent); }
footer { padding: 3rem 1.5rem 3rem; color: var(--soft); font-size: .82rem; }
@media (max-width: 40rem) { header { padding-top: 1.6rem; } h1 { font-size: 1.7rem; } }
@media print {
  :root {
    --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #f2f2f2; --accent: #1d4d38;
    --warn: #5c3200; --warn-tint: #fff; --right: #0b6b41; --wrong: #a1251d;
  }
  body { font-size: 10.5pt; }
  nav { display: none; }
  section { padding-top: 1rem; }
  .chart, .tile, tr { break-inside: avoid; }
  h2, h3, .how { break-after: avoid; }
  .note { border: 1px solid var(--warn); }
  .how { break-inside: avoid; }
  .grid { grid-template-columns: repeat(3, 1fr); }
  .grid.small { grid-template-columns: repeat(5, 1fr); }
  .crop { height: 5.4rem; }
  .pair { grid-template-columns: 1fr 3.6rem; }
  .strip { grid-template-columns: repeat(9, minmax(0, 1fr)); gap: .2rem; }
  .strip .crop { height: 3.6rem; }
  .chart, .scroll, .strips { overflow: visible; }
  .chart svg { min-width: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

"""The look of a sheet: two pictures as large as the screen allows, and four large buttons, from phone to laptop.

Out: ``LOOK``, in the colours of the other pages.
"""

from __future__ import annotations

LOOK = """
:root {
  color-scheme: light dark;
  --paper: #f7f6f1; --card: #ffffff; --ink: #20241f; --soft: #5d645b; --line: #c9c7bc; --accent: #2b6a4d;
  --warn: #8a4b00; --warn-tint: #fdf1de; --same: #1d7f55; --different: #b3372f; --not_an_animal: #8a5a00;
  --unsure: #55606e; --on: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151814; --card: #1d211c; --ink: #e7e6df; --soft: #a3a99f; --line: #454b43; --accent: #7fc4a0;
    --warn: #f0bd77; --warn-tint: #33291a; --same: #58c795; --different: #f08277; --not_an_animal: #e0b45c;
    --unsure: #aab4c0; --on: #12150f;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.5 "Inter", "Segoe UI", "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, system-ui, sans-serif;
}
main, footer { max-width: 76rem; margin: 0 auto; padding: .7rem 1rem 0; }
footer { color: var(--soft); font-size: .8rem; padding-bottom: 1rem; overflow-wrap: anywhere; }
h1 {
  font: 600 1.9rem/1.2 Charter, "Iowan Old Style", Georgia, "Noto Serif", "Liberation Serif", serif;
  margin: 1rem 0 .4rem;
}
h1:focus { outline: none; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; margin: 0;
}
#start, #end { max-width: 46rem; margin: 0 auto; }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 1rem 0; }
label { font-weight: 600; }
input[type=text] {
  font: inherit; color: inherit; background: var(--card); border: 1px solid var(--soft); border-radius: .4rem;
  padding: .5rem .7rem; flex: 1 1 12rem; min-width: 0;
}
input[type=file] { font: inherit; max-width: 100%; }
button {
  font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .45rem .8rem; min-height: 2.75rem; cursor: pointer; touch-action: manipulation;
}
button:disabled { color: var(--soft); opacity: .55; cursor: default; }
button.main { background: var(--accent); color: var(--on); border-color: var(--accent); font-weight: 600; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
kbd {
  font: 600 .78rem/1 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; border: 1px solid currentColor;
  border-radius: .25rem; padding: .12rem .35rem; margin: 0 .15rem; white-space: nowrap;
}
table { border-collapse: collapse; font-size: .92rem; margin: 1.2rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: .2rem; }
th, td {
  text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400;
}
th { font-weight: 600; white-space: nowrap; }
.note {
  background: var(--warn-tint); color: var(--warn); padding: .6rem .9rem; border-radius: .5rem; overflow-wrap: anywhere;
}
.bar { display: flex; align-items: center; gap: .8rem; margin-bottom: .6rem; }
progress { flex: 1; min-width: 3rem; height: .8rem; accent-color: var(--accent); }
#count { font-variant-numeric: tabular-nums; white-space: nowrap; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: .7rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
.sides img { display: block; width: 100%; height: min(50vh, 36rem); object-fit: contain; background: #0002; }
.sides.place figure { border-color: var(--warn); border-style: dashed; }
figcaption { font-size: .78rem; color: var(--soft); padding: .1rem .6rem; }
.facts, #last { color: var(--soft); font-size: .88rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts { margin: .4rem 0 0; min-height: 1.5em; }
.answers { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem; margin: .7rem 0 .6rem; }
.answer { border: 2px solid var(--shade); color: var(--shade); font-weight: 600; min-height: 3.3rem; padding: .3rem; }
.answer:hover { background: color-mix(in srgb, var(--shade) 12%, var(--card)); }
.answer[aria-pressed=true] { background: var(--shade); color: var(--on); }
.same { --shade: var(--same); } .different { --shade: var(--different); }
.not_an_animal { --shade: var(--not_an_animal); } .unsure { --shade: var(--unsure); }
.moves { display: flex; flex-wrap: wrap; gap: .5rem; }
#status, #status-end { min-height: 1.5rem; margin: .5rem 0; color: var(--soft); overflow-wrap: anywhere; }
#last { display: flex; gap: .7rem; align-items: center; border-top: 1px solid var(--line); padding: .6rem 0; }
#last img { height: 3.4rem; max-width: 5.2rem; object-fit: contain; border-radius: .25rem; }
#last b { color: var(--shade); }
@media (max-width: 40rem) {
  main { padding: .4rem .6rem 0; }
  .answers { grid-template-columns: 1fr 1fr; }
  .moves button { flex: 1 1 28%; padding: .3rem; font-size: .9rem; }
  .bar button { padding: .3rem .5rem; font-size: .85rem; min-height: 2.4rem; }
  figcaption { display: none; }
  .facts { min-height: 3em; }
}
@media (max-width: 40rem) and (orientation: portrait) {
  .sides { grid-template-columns: 1fr; gap: .4rem; }
  .sides img { height: 23vh; }
}
@media (max-height: 30rem) and (orientation: landscape) {
  main { padding-top: .2rem; }
  .bar { margin-bottom: .2rem; }
  .sides img { height: 46vh; }
  figcaption { display: none; }
  .answers { margin: .3rem 0; }
  .answer { min-height: 2.75rem; }
  .facts { min-height: 1.5em; }
}
@media (hover: none) and (max-width: 40rem) { .answers kbd { display: none; } }
@media (prefers-reduced-motion: no-preference) { .answer { transition: background .12s; } }
"""

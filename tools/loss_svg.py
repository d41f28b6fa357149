#!/usr/bin/env python3
"""The losses of two runs, from their logs (offload-train --log), as an SVG.

    loss_svg.py NAME=LOG.jsonl NAME=LOG.jsonl OUT.svg [--title TEXT]

Above, both curves over the steps; below, how far the second is from the first, in percent. The
last line of standard output has the losses of the last step, and the means of the last twenty.
Needs nothing but Python 3.
"""

import argparse
import json
from xml.sax.saxutils import escape

LEFT, RIGHT, TOP, WIDTH = 64, 16, 44, 720
UPPER, GAP, LOWER = 260, 40, 110
COLOURS = ["#4477aa", "#ee8866"]
TAIL = 20


def read(word):
    name, _, path = word.partition("=")
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return name, {line["step"]: line["loss"] for line in lines if "loss" in line}


def ticks(low, high):
    """Round values between the two, some five of them."""
    unit = 10.0 ** (len(str(int(high - low))) - 1)
    while (high - low) / unit < 4:
        unit /= 2 if (high - low) / unit < 2 else 2.5
    first = int(low / unit) - 1
    return [i * unit for i in range(first, first + 40) if low <= i * unit <= high]


class Chart:
    """One pair of axes; what is drawn is appended to `out`."""

    def __init__(self, out, top, height, steps, low, high):
        self.out, self.top, self.height = out, top, height
        self.steps, self.low, self.high = steps, low, high

    def x(self, step):
        return LEFT + (step - self.steps[0]) / (self.steps[-1] - self.steps[0]) * WIDTH

    def y(self, value):
        return self.top + (self.high - value) / (self.high - self.low) * self.height

    def axes(self, form):
        for value in ticks(self.low, self.high):
            y = self.y(value)
            self.out.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#dddddd"/>'
                            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                            f'{form.format(value)}</text>')
        for step in ticks(0, self.steps[-1]):
            if step >= self.steps[0]:
                x, y = self.x(step), self.top + self.height + 16
                self.out.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">'
                                f'{step:.0f}</text>')

    def curve(self, values, colour):
        points = " ".join(f"{self.x(s):.1f},{self.y(values[s]):.1f}" for s in self.steps)
        self.out.append(f'<polyline points="{points}" fill="none" stroke="{colour}"'
                        ' stroke-width="1.3"/>')


def draw(runs, title):
    (name_a, a), (name_b, b) = runs
    steps = sorted(a.keys() & b.keys())
    off = {s: 100 * (b[s] / a[s] - 1) for s in steps}
    out = []
    both = [run[s] for run in (a, b) for s in steps]
    upper = Chart(out, TOP, UPPER, steps, min(both), max(both))
    upper.axes("{:.1f}")
    upper.curve(a, COLOURS[0])
    upper.curve(b, COLOURS[1])
    far = max(max(abs(o) for o in off.values()), 0.01)
    lower = Chart(out, TOP + UPPER + GAP, LOWER, steps, -far, far)
    lower.axes("{:.1f} %" if far > 0.5 else "{:.2f} %")
    lower.curve(off, COLOURS[1])
    for i, name in enumerate((name_a, name_b)):
        out.append(f'<path d="M{LEFT + WIDTH - 150} {TOP + 16 + 18 * i}h24" stroke-width="2"'
                   f' stroke="{COLOURS[i]}"/><text x="{LEFT + WIDTH - 120}"'
                   f' y="{TOP + 20 + 18 * i}">{escape(name)}</text>')
    out.append(f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>')
    out.append(f'<text x="{LEFT + 8}" y="{TOP + UPPER + GAP + 12}">'
               f'{escape(name_b)} over {escape(name_a)}</text>')
    width, height = LEFT + WIDTH + RIGHT, TOP + UPPER + GAP + LOWER + 28
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
            f'<rect width="{width}" height="{height}" fill="white"/>' + "\n".join(out)
            + "</svg>\n"), steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("logs", nargs=2, metavar="NAME=LOG.jsonl")
    parser.add_argument("out")
    parser.add_argument("--title", default="Loss by step")
    args = parser.parse_args()
    runs = [read(word) for word in args.logs]
    picture, steps = draw(runs, args.title)
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(picture)
    ends = [[run[s] for s in steps[-TAIL:]] for _, run in runs]
    means = [sum(end) / len(end) for end in ends]
    for what, (one, two) in (("last step", (ends[0][-1], ends[1][-1])), ("mean", means)):
        print(f"{what}: {one:.4f}, {two:.4f}, {100 * (two / one - 1):+.2f} %")


main()

#!/usr/bin/env python3
"""A Chrome trace of offload-train or offload-bench plan as an SVG timeline.

    trace_svg.py TRACE.json OUT.svg [--from MS] [--to MS] [--width PIXELS]

One row for each lane and drive, one box for each span, coloured by the training step that it
belongs to, so that updates of one step under the computing of the next are seen at a glance.
Spans narrower than a third of a pixel are merged with their neighbours of the same step. Needs
nothing but Python 3.
"""

import argparse
import json
import sys
from xml.sax.saxutils import escape

ROW = 26
LEFT = 110
TOP = 44
BOTTOM = 40
STEPS = ["#4477aa", "#ee8866", "#44aa77", "#cc6688", "#bbaa44", "#66ccee"]


def read(path):
    """Row names, spans (row, start, end, step, name) in milliseconds, the title."""
    with open(path, encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    rows, spans, title = {}, [], ""
    for event in events:
        if event["ph"] == "M" and event["name"] == "thread_name":
            rows[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "M":
            title = event["args"]["name"]
        elif event["ph"] == "X":
            start = event["ts"] / 1000
            spans.append((event["tid"], start, start + event["dur"] / 1000,
                          event["args"]["step"], event["name"]))
    return rows, spans, title


def merge(spans, least):
    """Neighbours in a row and step with less than `least` between them become one."""
    out = []
    for span in sorted(spans):
        last = out[-1] if out else None
        if (last and last[0] == span[0] and last[3] == span[3] and span[1] - last[2] < least
                and min(last[2] - last[1], span[2] - span[1]) < 8 * least):
            out[-1] = (last[0], last[1], max(last[2], span[2]), last[3], last[4])
        else:
            out.append(span)
    return out


def ruler(begin, end, scale, height):
    """Lines at round times, some ten of them."""
    unit = 10.0 ** len(str(int((end - begin) / 10)))
    while (end - begin) / unit < 6:
        unit /= 2
    lines, at = [], 0.0
    while at <= end - begin:
        x = LEFT + at * scale
        lines.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - BOTTOM}" '
                     f'stroke="#ddd"/><text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">'
                     f'{(at + begin) / 1000:.3g} s</text>')
        at += unit
    return lines


def draw(rows, spans, title, begin, end, width):
    order = sorted(rows)
    height = TOP + ROW * len(order) + BOTTOM
    scale = (width - LEFT - 20) / (end - begin)
    inside = [s for s in spans if s[2] > begin and s[1] < end]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<title>{escape(title)}</title>']
    out += ruler(begin, end, scale, height)
    for i, row in enumerate(order):
        y = TOP + ROW * i
        out.append(f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">'
                   f'{escape(rows[row])}</text>')
        out.append(f'<rect x="{LEFT}" y="{y + 3}" width="{width - LEFT - 20}" '
                   f'height="{ROW - 6}" fill="#f4f4f4"/>')
    for row, start, stop, step, name in merge(inside, 1 / 3 / scale):
        start, stop = max(start, begin), min(stop, end)
        y = TOP + ROW * order.index(row)
        out.append(f'<rect x="{LEFT + (start - begin) * scale:.2f}" y="{y + 3}" '
                   f'width="{max((stop - start) * scale, 0.3):.2f}" height="{ROW - 6}" '
                   f'fill="{STEPS[step % len(STEPS)]}"><title>{escape(name)}, step {step + 1}'
                   f'</title></rect>')
    x = LEFT
    for step in sorted({s[3] for s in inside}):
        out.append(f'<rect x="{x}" y="{height - 24}" width="14" height="12" '
                   f'fill="{STEPS[step % len(STEPS)]}"/>'
                   f'<text x="{x + 19}" y="{height - 14}">step {step + 1}</text>')
        x += 90
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("trace")
    parser.add_argument("svg")
    parser.add_argument("--from", dest="begin", type=float, default=0)
    parser.add_argument("--to", dest="end", type=float)
    parser.add_argument("--width", type=int, default=1100)
    words = parser.parse_args()
    rows, spans, title = read(words.trace)
    if not spans:
        sys.exit(f"trace_svg: {words.trace}: no spans")
    end = words.end or max(s[2] for s in spans)
    with open(words.svg, "w", encoding="utf-8") as file:
        file.write(draw(rows, spans, title, words.begin, end, words.width))


if __name__ == "__main__":
    main()

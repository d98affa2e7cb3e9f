"""perf script on standard input -> a flame graph (SVG) on standard output.

A box is a function, its width the share of samples in which it was on the
stack, what it calls stands above it.  Names show as tooltips where they do not
fit.  After Brendan Gregg, "The Flame Graph" (CACM 59(6), 2016).
"""
import html
import re
import sys

WIDTH, ROW, LEAST = 1200, 18, 0.3  # pixels; narrower boxes are left out


class Node:
    def __init__(self):
        self.n = 0
        self.children = {}

    def add(self, stack):
        node = self
        node.n += 1
        for name in stack:
            node = node.children.setdefault(name, Node())
            node.n += 1

    def depth(self):
        return 1 + max((c.depth() for c in self.children.values()), default=0)


def stacks(lines):
    """Outermost function first.  A sample is a header line, then one line for
    each frame, "address name+offset (object)", then an empty line."""
    frames = []
    for line in lines:
        if not line.strip():
            if frames:
                yield frames[::-1]
            frames = []
        elif line[0] in " \t":
            m = re.match(r"\s*[0-9a-f]+ (.*) \(.*\)$", line.rstrip())
            if m:
                frames.append(re.sub(r"\+0x[0-9a-f]+$", "", m.group(1)))
    if frames:
        yield frames[::-1]


def color(name):
    h = sum(ord(c) * (i + 1) for i, c in enumerate(name))
    return f"rgb({205 + h % 50},{80 + h // 7 % 130},{h // 3 % 60})"


def draw(node, name, x, level, scale, total, height, out):
    w = node.n * scale
    if w < LEAST:
        return
    y = height - (level + 1) * ROW
    text = html.escape(name)
    out.append(f'<g><title>{text}: {node.n} samples, '
               f'{node.n * 100 / total:.1f} %</title>'
               f'<rect x="{x:.1f}" y="{y}" width="{w:.1f}" '
               f'height="{ROW - 1}" fill="{color(name)}"/>')
    fits = int(w / 7)
    if fits >= 3:
        out.append(f'<text x="{x + 2:.1f}" y="{y + 13}">'
                   f'{html.escape(name[:fits])}</text>')
    out.append("</g>")
    for child in sorted(node.children):
        c = node.children[child]
        draw(c, child, x, level + 1, scale, total, height, out)
        x += c.n * scale


def main():
    root = Node()
    for s in stacks(sys.stdin):
        root.add(s)
    if not root.n:
        sys.exit("flamegraph: no samples")
    sys.setrecursionlimit(10000)
    height = (root.depth() + 1) * ROW
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
           f'height="{height}" font-family="monospace" font-size="12">']
    draw(root, "all", 0, 0, WIDTH / root.n, root.n, height, out)
    out.append("</svg>")
    print("\n".join(out))


main()

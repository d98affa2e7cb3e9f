"""Writes answers.jsonl: texts with the answer that CITER's own extraction finds.

    python make.py CITER/src/utils/io_format.py     # CITER at commit 465492e

Each line: text, choices, labels, and the label found (null: none, or a letter
that is no label). The texts are put together at random from what models write
and from what could mislead a scanner; the seed is fixed.
"""
import importlib.util
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
CHOICES = [
    ["bank", "library", "department store", "mall", "new york"],
    ["hotel", "hotel room", "Room", "a", "in the hotel room"],
    ["café", "Zürich", "naïve man", "ÉCOLE", "x(y)"],
    ["getting tired", "better grade", "sharing information", "interesting",
     "teaching"],
    ["A", "B", "bee", "DE", "E."],
]
PIECES = [
    "Therefore", "therefore", "THEREFORE", "Therefore,", "Therefore, the answer is ",
    "Therefore the answer", "So the answer is ", "The answer is ", "(a)", "(B)",
    "(c).", "(d", "e)", "( a )", "(AB)", "(F)", "(z)", "[D]", "\"C\"", "'E'",
    "“A”", "‘B’", "A", "B.", "C,", "D;", "E:", "A?", "B!", "Q", "I think",
    "USA.", "A1", "B_", "Aé", "Bé.", "C)5", "D.é", "\n", "\n\n", " ", "  ", ". ",
    ", ", "\t", "\u00a0", "\u3000", "...", "é", "日本", "\U0001f600", "\u200b",
    "x" * 20, "x" * 45, "y " * 12, "because it is where people go", "0.5",
]


def text_of(rng, choices):
    pool = PIECES + choices * 2 + [c.upper() for c in choices] + \
        [c.title() for c in choices] + [c[:-1] for c in choices]
    n = rng.choice([0, 1, 1, 2, 2, 3, 4, 6, 9])
    parts = [rng.choice(pool) for _ in range(n)]
    return rng.choice(["", " "]).join(parts)


def main():
    spec = importlib.util.spec_from_file_location("citer", sys.argv[1])
    citer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(citer)
    rng = random.Random(11)
    labels = list("ABCDE")
    seen, lines = set(), []
    while len(lines) < 1500:
        choices = rng.choice(CHOICES)
        text = text_of(rng, choices)
        if (text, choices[0]) in seen:
            continue
        seen.add((text, choices[0]))
        found, _ = citer.route_extract_answer(text, choices, labels)
        lines.append({"text": text, "choices": choices,
                      "found": found if found in labels else None})
    with open(HERE / "answers.jsonl", "w") as f:
        for line in lines:
            f.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

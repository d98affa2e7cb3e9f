"""The texts: what the quantiser may see and what it is measured on.

    python texts.py DATA_FOLDER OUT_FOLDER

calibration.txt  one part of questions and chains of thought of the training
                 parts, two of what Python brings along: the doc-strings of its
                 library and its language reference
chains.txt       the former alone: what calibrating on one kind costs the others
reasoning.txt    chains from parts that are in neither
plain.txt        this project's own documents: in neither, and technical English
                 as Python's is
"""
import ast
import json
import pathlib
import random
import sys
import sysconfig
from pydoc_data.topics import topics

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HELD_OUT = 300  # last lines of csqa_slm_train.jsonl
SHORTEST = 200  # characters; shorter doc-strings say little
LONGEST = 1500  # about, of a piece of the reference
PYTHON_PARTS = 2  # characters of Python's texts to one of the chains


def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def csqa(row):
    question = row["prompt"].split("\n\nPlease format")[0]
    return f"{question}\nAnswer: {row['cot']}\n"


def gsm8k(row):
    question = row["prompt"].split("Question: ", 1)[-1]
    return f"Question: {question}{row['cot']}\n"


def doc_strings():
    out = []
    folder = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                if len(text) > SHORTEST:
                    out.append(text + "\n")
    return shuffled(out)


def reference():
    """Python's language reference, in pieces of some paragraphs."""
    out = []
    for _, text in sorted(topics.items()):
        piece = []
        for paragraph in text.split("\n\n"):
            piece.append(paragraph)
            if sum(map(len, piece)) > LONGEST:
                out.append("\n\n".join(piece) + "\n")
                piece = []
        if piece:
            out.append("\n\n".join(piece) + "\n")
    return shuffled(out)


def shuffled(texts):
    """So that the beginning, which is what a quantiser reads, has of all."""
    random.Random(1).shuffle(texts)
    return texts


def alternating(a, b):
    out = []
    for pair in zip(a, b):
        out += pair
    return out


def blend(a, b, parts):
    """`parts` characters of a to one of b, however long their texts are."""
    out, n_a, n_b = [], 0, 0
    a, b = iter(a), iter(b)
    while (text := next(a if n_a <= parts * n_b else b, None)) is not None:
        if n_a <= parts * n_b:
            n_a += len(text)
        else:
            n_b += len(text)
        out.append(text)
    return out


def write(path, texts):
    pathlib.Path(path).write_text("\n".join(texts), encoding="utf-8")


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    common = lines(data / "csqa_slm_train.jsonl")
    maths = [gsm8k(r) for r in lines(data / "gsm8k_router_train.jsonl")]
    seen, held = common[:-HELD_OUT], common[-HELD_OUT:]
    chains = alternating([csqa(r) for r in seen], maths)
    python = blend(doc_strings(), reference(), 1)
    write(out / "chains.txt", chains)
    write(out / "calibration.txt", blend(python, chains, PYTHON_PARTS))
    dev = [f"Question: {r['problem']}\nSolution: {r['solution']}\n"
           for r in lines(data / "gsm8k_dev.jsonl")]
    write(out / "reasoning.txt", alternating([csqa(r) for r in held], dev))
    pages = ["README.md", "docs/architecture.md", "weights/FORMAT.md"]
    write(out / "plain.txt", [(REPOSITORY / p).read_text(encoding="utf-8")
                              for p in pages])


if __name__ == "__main__":
    main()

"""The texts: what the quantiser may see and what it is measured on.

    python texts.py DATA_FOLDER OUT_FOLDER

calibration.txt  questions and chains of thought of the training parts
reasoning.txt    the same kinds of text from parts that are not in it
plain.txt        this project's own documents: another kind of English
"""
import json
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HELD_OUT = 300  # last lines of csqa_slm_train.jsonl


def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def csqa(row):
    question = row["prompt"].split("\n\nPlease format")[0]
    return f"{question}\nAnswer: {row['cot']}\n"


def gsm8k(row):
    question = row["prompt"].split("Question: ", 1)[-1]
    return f"Question: {question}{row['cot']}\n"


def mixed(a, b):
    out = []
    for pair in zip(a, b):
        out += pair
    return "\n".join(out)


def write(path, text):
    pathlib.Path(path).write_text(text, encoding="utf-8")


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    common = lines(data / "csqa_slm_train.jsonl")
    maths = [gsm8k(r) for r in lines(data / "gsm8k_router_train.jsonl")]
    seen, held = common[:-HELD_OUT], common[-HELD_OUT:]
    write(out / "calibration.txt", mixed([csqa(r) for r in seen], maths))
    dev = [f"Question: {r['problem']}\nSolution: {r['solution']}\n"
           for r in lines(data / "gsm8k_dev.jsonl")]
    write(out / "reasoning.txt", mixed([csqa(r) for r in held], dev))
    pages = ["README.md", "docs/architecture.md", "weights/FORMAT.md"]
    write(out / "plain.txt", "\n".join((REPOSITORY / p).read_text(
        encoding="utf-8") for p in pages))


if __name__ == "__main__":
    main()

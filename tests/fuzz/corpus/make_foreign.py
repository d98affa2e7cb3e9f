"""Writes the seeds of fuzz_gguf and fuzz_safetensors: small files of the
reference writers.   python make_foreign.py   # needs gguf, numpy, safetensors
adapter.safetensors and hf_json/lora-* are the adapters of tests/golden/lora.
"""
import pathlib
import shutil

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def write(name, fill):
    w = gguf.GGUFWriter(HERE / "gguf" / name, "llama")
    fill(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def blocks(w):
    rng = np.random.default_rng(1)
    for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1,
              T.Q4_K, T.Q5_K, T.Q6_K):
        n_bytes = GGML_QUANT_SIZES[t][1]
        raw = rng.integers(0, 256, (2, n_bytes * (8 if n_bytes < 8 else 1)),
                           dtype=np.uint8)
        w.add_tensor(t.name.lower(), raw, raw_dtype=t)


def keys(w):
    w.add_uint8("u8", 1)
    w.add_int8("i8", -1)
    w.add_uint16("u16", 1)
    w.add_int16("i16", -1)
    w.add_uint32("u32", 1)
    w.add_int32("i32", -1)
    w.add_uint64("u64", 1)
    w.add_int64("i64", -1)
    w.add_float32("f32", 0.5)
    w.add_float64("f64", 0.5)
    w.add_bool("bool", True)
    w.add_string("string", "text")
    w.add_array("numbers", [1, 2, 3])
    w.add_array("strings", ["a", "bc"])
    w.add_array("nested", [[1, 2], [3]])
    w.add_custom_alignment(64)
    w.add_tensor("vector", np.zeros(4, np.float32))


def vocabulary(w):
    letters = sorted(set(range(33, 127)) | set(range(161, 173))
                     | set(range(174, 256)))
    rest = [b for b in range(256) if b not in letters]
    text = [chr(b) for b in letters] + [chr(256 + i) for i in range(len(rest))]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(text + ["th", "the", "<|im_end|>"])
    w.add_token_types([1] * (len(text) + 2) + [3])
    w.add_token_merges(["t h", "th e"])
    w.add_eos_token_id(len(text) + 2)


if __name__ == "__main__":
    write("blocks.gguf", blocks)
    write("keys.gguf", keys)
    write("vocabulary.gguf", vocabulary)
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16),
               "scalar": np.array(1.0), "empty": np.zeros((0, 4), np.int8)},
              HERE / "safetensors" / "four.safetensors",
              metadata={"format": "np"})
    save_file({"layer.weight": np.zeros((2, 2), np.float64)},
              HERE / "safetensors" / "one.safetensors")
    lora = HERE.parents[1] / "golden" / "lora"
    shutil.copyfile(lora / "upper" / "adapter_model.safetensors",
                    HERE / "safetensors" / "adapter.safetensors")
    for name in ("patterns", "plain"):
        (HERE / "hf_json" / f"lora-{name}").write_bytes(
            b"2" + (lora / name / "adapter_config.json").read_bytes())

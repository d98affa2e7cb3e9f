"""Models, skips that are counted, and one server for a class of tests."""
import os
import subprocess
import sys
import tempfile
import unittest

from server import Server

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TLR = os.path.abspath(os.environ.get("TLR", os.path.join(ROOT, "tlr")))
_folder = tempfile.TemporaryDirectory(prefix="tlr-serve-models.")


def skip(test, why):
    """A skip, which TLR_NO_SKIP makes a failure."""
    if os.environ.get("TLR_NO_SKIP"):
        raise AssertionError("skip: " + why)
    raise unittest.SkipTest(why)


def tiny(_test):
    """320 ids, a context of 512, a template: made on the fly."""
    path = os.path.join(_folder.name, "tiny.bin")
    if not os.path.exists(path):
        subprocess.run([TLR, "convert", os.path.join(ROOT, "tests/golden/hf_folders/tiny-qwen2"), "-o", path,
                        "--type", "q8"], check=True, capture_output=True)
    return path


def wordless(_test):
    path = os.path.join(_folder.name, "wordless.bin")
    subprocess.run([TLR, "convert", "random:tiny-llama", "-o", path, "--type", "q4"], check=True,
                   capture_output=True)
    return path


def real(test):
    path = os.path.join(ROOT, "models/smollm2-135m-instruct.bin")
    if not os.path.exists(path):
        skip(test, "models/smollm2-135m-instruct.bin was not fetched")
    return path


def pair(test, name):
    path = os.path.join(ROOT, "models", name)
    if not os.path.exists(path):
        test.skipTest(f"models/{name} was not made (make pair)")  # CI does not make it
    return path


class Case(unittest.TestCase):
    """Tests of one server: MODEL makes its model, OPTIONS are its options."""

    @classmethod
    def setUpClass(cls):
        cls.model = cls.MODEL(cls)
        cls.s = Server(TLR, cls.model, *cls.OPTIONS)

    @classmethod
    def tearDownClass(cls):
        log, status = cls.s.messages(), cls.s.stop()
        cls.s.folder.cleanup()
        if status != 0 or "tlr: " in log:
            print(log, file=sys.stderr)
            raise AssertionError(f"the server ended with {status} or complained")

"""run.py [TLR] - tests of tlr serve through its port; prints one counting line.

Plain Python; the official OpenAI client where it is installed.
"""
import os
import sys
import unittest

if len(sys.argv) > 1:
    os.environ["TLR"] = sys.argv[1]
sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)

suite = unittest.defaultTestLoader.discover(here, "test_*.py")
result = unittest.TextTestRunner(verbosity=1).run(suite)
failed = len(result.failures) + len(result.errors)
skipped = len(result.skipped)
for test, why in result.skipped:
    print(f"skip: {test}: {why}")
print(f"serve: {result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped")
sys.exit(1 if failed or result.testsRun == 0 else 0)

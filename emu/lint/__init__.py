"""The linter: run a guest on a set of firmware, and say which rules of the standards it breaks, where, and why.

firmwares.py  which firmware a guest is run on: hosts and versions, and on each a few probes that change one thing
runs.py       one run of a guest, kept as a `Trace`; recorded.py makes one of a file that --trace wrote
trace.py      what a rule sees: calls in order, the device tree, how it ended
rules.py      the rules, a row each; onetrace.py and compared.py have what they do
findings.py   what is found, once for each rule and call site; texts.py and sarif.py spell it
"""

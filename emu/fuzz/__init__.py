"""The fuzzer: run a guest from its first call on firmware that is mutated, and keep what goes wrong.

case.py      one firmware as the fuzzer varies it, in a user's words
legal.py     whether a standard allows it
mutate.py    what can be changed in a case
guest.py     a guest and its machine as plain data, which another computer can run
world.py     the guest at its first call: run on from there, again and again; worlds.py has all of them, forked.py a fork for each run
judge.py     the oracles: what is wrong with a run, and which call is to blame
job.py       plain data in, plain data out: what a worker does
workers.py   any executor, and what becomes of the jobs of a worker that dies
campaign.py  rounds of jobs, the corpus, and what was found
files.py     the corpus in AFL's layout, and a finding as a file that `psci-emu replay` reads
texts.py     what a user reads
"""

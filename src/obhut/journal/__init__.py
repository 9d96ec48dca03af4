"""Whatever Obhut does can be followed step by step, and whatever was killed can be resumed.

Each step is committed before its effect begins and after it has ended, so that a crash leaves a journal that is at most one step
behind. Never lets two processes carry out one run, never calls a run done that is not, never stores a value of personal data.
"""

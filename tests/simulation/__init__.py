"""The core of a run (worker, settling, backlog, window, guard, limiter, budget) in a world made of dice.

One number decides everything that happens: answers, faults, outages, commits, full disks, crashes. The clock is
virtual, nothing waits and there are no threads, so thousands of schedules run in a minute and each can be repeated.
"""

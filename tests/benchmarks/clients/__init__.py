"""What batcher is measured against: loops that ask every row and store nothing. Each is a program of its own.

python -m tests.benchmarks.clients.NAME BASE_URL ROWS_FILE IN_FLIGHT
"""

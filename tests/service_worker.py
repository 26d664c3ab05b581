"""Runs a worker of tf.data service in a process of its own: `python tests/service_worker.py DISPATCHER_ADDRESS`."""

import sys

import tensorflow as tf

config = tf.data.experimental.service.WorkerConfig(dispatcher_address=sys.argv[1], heartbeat_interval_ms=100)
server = tf.data.experimental.service.WorkerServer(config)
print("ready", flush=True)
sys.stdin.read()  # until the test closes it

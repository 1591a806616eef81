#!/usr/bin/python3
"""OpenStack Swift with its S3 API on 127.0.0.1: a proxy process and one for its three stores.

usage: swift-server.py DIRECTORY      (empty; everything is kept there)

Prints the proxy's port once it listens. Access key test:tester, secret testing.
"""
import ctypes
import json
import os
import pwd
import signal
import socket
import sys
import time

import eventlet
import eventlet.debug
from eventlet import wsgi

from swift.common import utils

utils.eventlet_monkey_patch()

ROOT = os.path.abspath(sys.argv[1])
ETC = os.path.join(ROOT, "etc")
DEVICE = "d1"
PR_SET_PDEATHSIG = 1
STORES = ("account", "container", "object")

PIPELINE = "catch_errors gatekeeper cache listing_formats bulk s3api tempauth copy slo dlo"
FILTERS = {
    "s3api": {
        "location": "us-east-1",
        "check_bucket_owner": "false",
        "max_upload_part_num": "10000",
        # Pages of a list: each request costs it some 10 ms of a core, so tests need few keys.
        "max_bucket_listing": "100",
    },
    "tempauth": {"user_test_tester": "testing .admin", "storage_url_scheme": "http"},
}


def write(name, sections):
    lines = []
    for section, values in sections.items():
        lines.append("[%s]" % section)
        lines.extend("%s = %s" % item for item in values.items())
    with open(os.path.join(ETC, name), "w") as out:
        out.write("\n".join(lines) + "\n")


def common(port):
    return {
        "bind_ip": "127.0.0.1",
        "bind_port": port,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "swift_dir": ETC,
        "devices": os.path.join(ROOT, "devices"),
        "mount_check": "false",
        "disable_fallocate": "true",
        "fallocate_reserve": "0",
        "log_level": "ERROR",
        "log_address": "/dev/null",
        "eventlet_debug": "false",
    }


# "time" is also the name of a parameter that Swift passes by name.
clock = time.time


class ProcessCache:
    """Stands for memcached: one process needs none. Entries live as long as the server does."""

    def __init__(self, app):
        self.app = app
        self.values = {}

    def __call__(self, env, start_response):
        env["swift.cache"] = self
        return self.app(env, start_response)

    def get(self, key, raise_on_error=False):
        value, expires = self.values.get(key, (None, 0))
        return json.loads(value) if value is not None and expires > clock() else None

    def set(self, key, value, time=0, **_):
        self.values[key] = (json.dumps(value), clock() + (time or 1e9))

    def delete(self, key, server_key=None):
        self.values.pop(key, None)

    def incr(self, key, delta=1, time=0):
        value = int(self.get(key) or 0) + delta
        self.set(key, value, time=time)
        return value

    def decr(self, key, delta=1, time=0):
        return self.incr(key, -delta, time)


def write_configuration(ports):
    write("swift.conf", {
        "swift-hash": {"swift_hash_path_suffix": "test", "swift_hash_path_prefix": "test"},
        "storage-policy:0": {"name": "gold", "default": "yes"},
    })
    for kind in STORES:
        write(kind + ".conf", {
            "DEFAULT": common(ports[kind]),
            "pipeline:main": {"pipeline": kind + "-server"},
            "app:%s-server" % kind: {"use": "egg:swift#" + kind},
        })
    proxy = {
        "DEFAULT": common(ports["proxy"]),
        "pipeline:main": {"pipeline": PIPELINE.replace(" cache", "") + " proxy-server"},
        "app:proxy-server": {"use": "egg:swift#proxy", "account_autocreate": "true"},
    }
    for name in PIPELINE.replace(" cache", "").split():
        proxy["filter:" + name] = {"use": "egg:swift#" + name, **FILTERS.get(name, {})}
    write("proxy.conf", proxy)


def write_rings(ports):
    from swift.common.ring import RingBuilder

    for kind in STORES:
        builder = RingBuilder(4, 1, 0)
        builder.add_dev({
            "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[kind],
            "replication_ip": "127.0.0.1", "replication_port": ports[kind],
            "device": DEVICE, "weight": 1.0, "meta": "",
        })
        builder.rebalance()
        builder.get_ring().save(os.path.join(ETC, kind + ".ring.gz"))


def serve(kind, listener):
    from swift.common.wsgi import SwiftHttpProtocol, loadapp

    app = loadapp(os.path.join(ETC, kind + ".conf"), global_conf={"log_name": kind})
    if kind == "proxy":
        app = ProcessCache(app)
    wsgi.server(
        listener, app, utils.NullLogger(), protocol=SwiftHttpProtocol, socket_timeout=60,
        capitalize_response_headers=False)


def main():
    os.makedirs(ETC)
    os.makedirs(os.path.join(ROOT, "devices", DEVICE))
    eventlet.debug.hub_exceptions(False)
    listeners = {}
    for kind in STORES + ("proxy",):
        listeners[kind] = eventlet.listen(("127.0.0.1", 0), backlog=128)
        listeners[kind].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ports = {kind: listener.getsockname()[1] for kind, listener in listeners.items()}
    write_configuration(ports)
    utils.set_swift_dir(ETC)
    from swift.common import storage_policy
    storage_policy.reload_storage_policies()
    write_rings(ports)
    if os.fork() == 0:
        # The kernel ends us with the proxy, however that ends.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        kinds = STORES
    else:
        kinds = ("proxy",)
        print(ports["proxy"], flush=True)
    for thread in [eventlet.spawn(serve, kind, listeners[kind]) for kind in kinds]:
        thread.wait()


main()

"""What the recipes of docs/plugs.md say, as shell variables.

recipes.py NOMAD.hcl KUBERNETES.yaml: each is parsed and looked at as its reader
would, as far as that can be done without one.
"""
import shlex
import sys

import hcl
import yaml


def say(name, words):
    print(f"{name}=({shlex.join(words)})")


with open(sys.argv[1]) as f:
    job = hcl.load(f)["job"]["web"]
group = job["group"]["web"]
tasks = {name: task for one in group["task"] for name, task in one.items()}
release, web = tasks["release"], tasks["web"]
assert release["lifecycle"]["hook"] == "prestart", release
assert release["driver"] == "raw_exec", release
assert web["volume_mount"]["volume"] in group["volume"], web
assert web["config"]["command"].startswith(web["volume_mount"]["destination"] + "/"), web
say("nomad", [release["config"]["command"], *release["config"]["args"]])
say("nomad_web", [web["config"]["command"]])

with open(sys.argv[2]) as f:
    daemons = yaml.safe_load(f)
assert (daemons["apiVersion"], daemons["kind"]) == ("apps/v1", "DaemonSet"), daemons
labels = daemons["spec"]["template"]["metadata"]["labels"]
assert daemons["spec"]["selector"]["matchLabels"].items() <= labels.items(), labels
pod = daemons["spec"]["template"]["spec"]
(container,) = pod["containers"]
volumes = {v["name"]: v for v in pod["volumes"]}
mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
assert volumes.keys() == mounts.keys(), (volumes, mounts)
assert volumes["srv"]["hostPath"]["path"] == mounts["srv"], "the paths in the container are not the host's"
assert mounts["trusted"] == "/etc/dcfs/trusted.d", mounts
say("kubernetes", container["args"])
say("kubernetes_env", [f"{e['name']}={e['value']}" for e in container["env"]])
say("kubernetes_probe", container["readinessProbe"]["exec"]["command"])

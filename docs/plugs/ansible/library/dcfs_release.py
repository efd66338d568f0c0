#!/usr/bin/python3
"""Ansible module: a dcfs release stands in a directory, and a symlink leads to it."""

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: dcfs_release
short_description: A dcfs release in a directory, whole or not at all
description:
  - Fetches a signed release into a directory and, if asked, swaps a symlink to it.
  - The directory counts when dcfs has a receipt of that release for it; nothing is
    read again. C(dcfs verify) does that.
options:
  release: {description: VERSION of the release at the origin., required: true, type: str}
  dest: {description: Directory that becomes the copy; it must not hold anything else., required: true, type: path}
  origin: {description: URLs of origins., type: list, elements: str}
  activate: {description: Symlink that is to lead to dest., type: path}
  linger: {description: How long the host seeds on in the background., type: str, default: 5m}
  flags: {description: Further flags of C(dcfs fetch)., type: list, elements: str, default: []}
  executable: {description: The program., type: str, default: dcfs}
"""

EXAMPLES = r"""
- dcfs_release:
    release: web-2
    dest: /srv/releases/web-2
    origin: [http://origin:7070]
    activate: /srv/current
"""

RETURN = r"""
infohash: {description: Of the release that stands in dest., type: str, returned: when one stands}
fetched: {description: The copy was made, or would be., type: bool, returned: always}
activated: {description: The symlink was swapped, or would be., type: bool, returned: always}
previous: {description: What the symlink led to before., type: str, returned: with activate}
"""


class Release:
    """What the module is to bring about, and how far that is."""

    def __init__(self, module):
        self.module, self.p = module, module.params

    def run(self, *args):
        """Run dcfs to its end and return what it says as JSON."""
        code, out, err = self.module.run_command([self.p["executable"], *args, "--json", "--quiet"])
        if code != 0:
            # dcfs says what failed, why, and what to try next.
            self.module.fail_json(msg=err.strip() or "dcfs ended with %d" % code, rc=code, cmd=list(args))
        return json.loads(out)

    def receipt(self):
        link = ["--link", self.p["activate"]] if self.p["activate"] else []
        return self.run("receipt", self.p["dest"], *link)

    def stands(self, receipt):
        return receipt["complete"] and receipt["version"] == self.p["release"]

    def leads(self, receipt):
        target = receipt.get("target", "")
        return bool(target) and os.path.realpath(target) == os.path.realpath(self.p["dest"])

    def fetch(self):
        origins = [word for url in self.p["origin"] or [] for word in ("--origin", url)]
        self.run("fetch", self.p["release"], self.p["dest"], *origins, "--linger", self.p["linger"],
                 "--detach-after", "materialised", *self.p["flags"])

    def bring(self):
        before = self.receipt()
        result = {"fetched": not self.stands(before), "activated": bool(self.p["activate"]) and not self.leads(before)}
        result["changed"] = result["fetched"] or result["activated"]
        if self.p["activate"]:
            result["previous"] = before.get("target", "")
        if self.module.check_mode:
            return result
        if result["fetched"]:
            self.fetch()
        if result["activated"]:
            self.run("activate", self.p["activate"], self.p["dest"])
        result["infohash"] = self.receipt().get("infohash")
        return result


def main():
    module = AnsibleModule(
        supports_check_mode=True,
        argument_spec={
            "release": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "origin": {"type": "list", "elements": "str"},
            "activate": {"type": "path"},
            "linger": {"type": "str", "default": "5m"},
            "flags": {"type": "list", "elements": "str", "default": []},
            "executable": {"type": "str", "default": "dcfs"},
        },
    )
    module.exit_json(**Release(module).bring())


if __name__ == "__main__":
    main()

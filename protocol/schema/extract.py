#!/usr/bin/env python3
"""Brings the facts of Apache Kafka's message schemas over into the field tables beside this script.

    extract.py DIR_OF_KAFKA_JARS

Reads the schema resources inside the jars (kafka-clients, kafka-metadata, kafka-group-coordinator,
kafka-transaction-coordinator, kafka-share-coordinator, kafka-raft) and writes one `.schema` file
for each jar: names, types, versions, nullability, tags and defaults. No prose is taken over.
"""
import glob
import json
import os
import re
import sys
import zipfile

JARS = {
    "kafka-clients-4": "client",
    "kafka-metadata-4": "metadata",
    "kafka-group-coordinator-4": "group",
    "kafka-transaction-coordinator-4": "transaction",
    "kafka-share-coordinator-4": "share",
    "kafka-raft-4": "raft",
}
HEADER = """# Facts of Apache Kafka's message schemas, written by extract.py: edit the script, not this file.
# NAME kind [key=API] versions=RANGE flexible=RANGE [listeners=..] [unstable]
#   Field type versions [nullable=RANGE] [tag=N@RANGE] [default=VALUE] [ignorable] [flexible=RANGE]
"""


def field_lines(fields, depth):
    for field in fields:
        words = [field["name"], field["type"], field.get("versions") or field["taggedVersions"]]
        if field.get("nullableVersions", "none") != "none":
            words.append("nullable=" + field["nullableVersions"])
        if "tag" in field:
            words.append(f"tag={field['tag']}@{field['taggedVersions']}")
        if field.get("default") is not None:  # a JSON null means "no default" to Kafka too
            value = field["default"]
            value = str(value).lower() if isinstance(value, bool) else str(value)
            if value != "":
                words.append("default=" + value)
        if field.get("ignorable") in (True, "true"):
            words.append("ignorable")
        if "flexibleVersions" in field:
            words.append("flexible=" + field["flexibleVersions"])
        yield "  " * depth + " ".join(words)
        yield from field_lines(field.get("fields", []), depth + 1)


def message_lines(message):
    words = [message["name"], message["type"]]
    if "apiKey" in message:
        words.append(f"key={message['apiKey']}")
    words.append("versions=" + message["validVersions"])
    words.append("flexible=" + message.get("flexibleVersions", "none"))
    if message.get("listeners"):
        words.append("listeners=" + ",".join(message["listeners"]))
    if message.get("latestVersionUnstable"):
        words.append("unstable")
    yield " ".join(words)
    yield from field_lines(message["fields"], 1)
    for struct in message.get("commonStructs", []):
        yield f"  struct {struct['name']} {struct['versions']}"
        yield from field_lines(struct["fields"], 2)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    for jar, table in JARS.items():
        (path,) = [
            p for p in glob.glob(os.path.join(sys.argv[1], jar + "*.jar")) if "sources" not in p
        ]
        messages = []
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".json") and name.startswith("common/"):
                    text = archive.read(name).decode()
                    text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
                    text = re.sub(r'("(?:[^"\\]|\\.)*")|//.*', lambda m: m.group(1) or "", text)
                    messages.append(json.loads(text))
        messages.sort(key=lambda m: m["name"])
        with open(os.path.join(here, table + ".schema"), "w") as out:
            out.write(HEADER)
            for message in messages:
                if message["validVersions"] != "none":
                    out.write("\n" + "\n".join(message_lines(message)) + "\n")


if __name__ == "__main__":
    main()

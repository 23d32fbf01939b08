"""What was done to make a segmentation: JSON in one attribute of its node, so that it is saved with the scene."""

import json

ATTRIBUTE = "RefSeg.Provenance"


def stamp(node, done):
    """Write what was done onto a segmentation node, in place of what it said before.

    done: JSON-able; keys at least model, version, refseg (version), made_at (UTC, ISO 8601), image (hash), settings
    {reflect, region}, weights (file name -> hash), where (in words).
    """
    node.SetAttribute(ATTRIBUTE, json.dumps(done, sort_keys=True))


def stamped(node):
    """What was done to make a segmentation node: the dict of `stamp`; None if nobody told or it cannot be read."""
    text = node.GetAttribute(ATTRIBUTE) if node is not None else None
    try:
        done = json.loads(text or "null")
    except ValueError:
        return None
    return done if isinstance(done, dict) else None

"""From a photo to what the index is asked: camera, attitude, height, and north-up patches of the ground."""

from provisioning.quality.query.attitude import Angles, camera_rotation
from provisioning.quality.query.camera import Camera
from provisioning.quality.query.declaration import Declared, declared, from_manifest, to_manifest
from provisioning.quality.query.metadata import Metadata
from provisioning.quality.query.patches import patch_centres, preferred_sides
from provisioning.quality.query.rendering import Patch, View, ground_to_pixels, render_patch
from provisioning.quality.query.viewing import Viewing, viewing

__all__ = [
    "Angles",
    "Camera",
    "Declared",
    "Metadata",
    "Patch",
    "View",
    "Viewing",
    "camera_rotation",
    "declared",
    "from_manifest",
    "ground_to_pixels",
    "patch_centres",
    "preferred_sides",
    "render_patch",
    "to_manifest",
    "viewing",
]

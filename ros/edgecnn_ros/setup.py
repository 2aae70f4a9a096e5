"""The setup of the ROS 2 package, for ament_python."""

from setuptools import setup

NAME = "edgecnn_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/edgecnn.launch.py"]),
        (f"share/{NAME}/config", ["config/edgecnn.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The edgecnn developers",
    maintainer_email="edgecnn@example.org",
    description="Detection, segmentation and classification of camera pictures with networks of edgecnn.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["edgecnn = edgecnn_ros.node:main"]},
)

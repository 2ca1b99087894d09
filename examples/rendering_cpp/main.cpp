// render project < LINES                 for each line CAMERA EAST NORTH: x, y, 1 if the photo shows it
// render patch PHOTO.ppm < LINE > OUT.ppm  for a line CAMERA EAST NORTH SIDE SIZE: the patch
// CAMERA: width height fx fy cx cy brown|fisheye COUNT distortion... yaw pitch roll height_m
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include "rendering.hpp"

using namespace flightcache;

static View read_view(std::istream& in) {
  int width = 0, height = 0;
  std::size_t count = 0;
  double fx = 0, fy = 0, cx = 0, cy = 0, yaw = 0, pitch = 0, roll = 0, height_m = 0;
  std::string model;
  if (!(in >> width >> height >> fx >> fy >> cx >> cy >> model >> count) || count > 8 || (model != "brown" && model != "fisheye"))
    throw std::invalid_argument("no such camera");
  std::vector<double> distortion(count);
  for (double& each : distortion) in >> each;
  if (!(in >> yaw >> pitch >> roll >> height_m)) throw std::invalid_argument("no attitude and height");
  return {Camera(width, height, fx, fy, cx, cy, model == "fisheye", distortion), Attitude::of(yaw, pitch, roll), height_m};
}

static Image read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int width = 0, height = 0, most = 0;
  if (!(file >> magic >> width >> height >> most) || magic != "P6" || most != 255 || width < 1 || height < 1 || width > 30000 ||
      height > 30000)
    throw std::invalid_argument("a binary PPM of 8 bits is expected");
  file.get();
  Image image{width, height, {std::istreambuf_iterator<char>(file), {}}};
  if (image.rgb.size() != static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3)
    throw std::invalid_argument("the PPM is cut short");
  return image;
}

static void project(std::istream& in) {
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    const View view = read_view(words);
    double east = 0, north = 0;
    if (!(words >> east >> north)) throw std::invalid_argument("no point of the ground");
    const Pixel pixel = view.pixel_of(east, north);
    std::printf("%.6f %.6f %d\n", pixel.x, pixel.y, pixel.seen ? 1 : 0);
  }
}

static void patch(const char* photo, std::istream& in) {
  const View view = read_view(in);
  double east = 0, north = 0, side = 0;
  int size = 0;
  if (!(in >> east >> north >> side >> size) || !(side > 0) || size < 1 || size > 8192)
    throw std::invalid_argument("no patch");
  const Image image = render_patch(read_ppm(photo), view, east, north, side, size).image;
  std::printf("P6\n%d %d\n255\n", size, size);
  std::fwrite(image.rgb.data(), 1, image.rgb.size(), stdout);
}

int main(int count, char** words) {
  const std::string command = count > 1 ? words[1] : "";
  try {
    if (command == "project" && count == 2) return project(std::cin), 0;
    if (command == "patch" && count == 3) return patch(words[2], std::cin), 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "render: %s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "usage: render project | render patch PHOTO.ppm\n");
  return 2;
}

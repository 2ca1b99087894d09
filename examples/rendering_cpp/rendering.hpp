// The ground as a map shows it, from the photo of a tilted camera: a north-up patch of a pinhole or fisheye camera over a
// plane. The steps are those of docs/camera.md, the figures those of provisioning/quality/query; C++17, nothing else.
//
// Angles in degrees: yaw clockwise from true north, pitch above the horizon (-90 looks straight down), roll right side
// down, of the optical axis. Metres east and north count from the point of the ground below the camera. Pixel (0, 0) is
// the centre of the upper left one.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace flightcache {

using Vector = std::array<double, 3>;
constexpr double PI = 3.14159265358979323846;
constexpr double MOST_TANGENT = 20;  // directions farther off the axis of a pinhole camera are not followed
constexpr int SAMPLES = 4096;

inline double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline Vector cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

struct Attitude {
  Vector right, down, forward;  // axes of the camera in east, north, up

  static Attitude of(double yaw_deg, double pitch_deg, double roll_deg) {
    const double yaw = yaw_deg * PI / 180, pitch = pitch_deg * PI / 180, roll = roll_deg * PI / 180;
    const Vector forward{std::sin(yaw) * std::cos(pitch), std::cos(yaw) * std::cos(pitch), std::sin(pitch)};
    const Vector level{std::cos(yaw), -std::sin(yaw), 0};
    const Vector below = cross(forward, level);
    Vector right{};
    for (std::size_t axis = 0; axis < 3; ++axis) right[axis] = std::cos(roll) * level[axis] + std::sin(roll) * below[axis];
    return {right, cross(forward, right), forward};
  }
};

struct Pixel {
  double x, y;
  bool seen;  // the photo shows it
};

class Camera {
 public:
  // distortion: k1, k2, p1, p2[, k3[, k4, k5, k6]] of OpenCV (Brown 1966), or k1 to k4 of its fisheye module; may be empty.
  Camera(int w, int h, double fx, double fy, double cx, double cy, bool fisheye, const std::vector<double>& distortion)
      : width(w), height(h), fx_(fx), fy_(fy), cx_(cx), cy_(cy), fisheye_(fisheye) {
    if (width < 1 || height < 1 || distortion.size() > (fisheye ? 4 : 8)) throw std::invalid_argument("no such camera");
    std::copy(distortion.begin(), distortion.end(), k_.begin());
    widest_ = widest();
  }

  // The pixel of a direction: right, down, forward of the camera, of any length.
  Pixel project(double right, double down, double forward) const {
    const double sideways = std::hypot(right, down), angle = std::atan2(sideways, forward);
    const bool ahead = angle < widest_;
    const double radius = fisheye_ ? (ahead ? angle : 0) : (ahead ? std::tan(std::min(angle, 1.55)) : MOST_TANGENT);
    const double scale = radius / std::max(sideways, 1e-300);
    const double x = right * scale, y = down * scale, squared = x * x + y * y, r = radial(squared);
    const double p1 = fisheye_ ? 0 : k_[2], p2 = fisheye_ ? 0 : k_[3];
    const double u = fx_ * (x * r + 2 * p1 * x * y + p2 * (squared + 2 * x * x)) + cx_;
    const double v = fy_ * (y * r + p1 * (squared + 2 * y * y) + 2 * p2 * x * y) + cy_;
    return {u, v, ahead && u >= -0.5 && u <= width - 0.5 && v >= -0.5 && v <= height - 0.5};
  }

  const int width, height;

 private:
  double radial(double s) const {
    if (fisheye_) return 1 + s * (k_[0] + s * (k_[1] + s * (k_[2] + s * k_[3])));
    return (1 + s * (k_[0] + s * (k_[1] + s * k_[4]))) / (1 + s * (k_[5] + s * (k_[6] + s * k_[7])));
  }

  // The angle from the axis up to which the distortion grows outwards: beyond it a polynomial folds back.
  double widest() const {
    const double last = fisheye_ ? PI : std::atan(MOST_TANGENT);
    double before = 0, angle = 0;
    for (int n = 1; n < SAMPLES; ++n) {
      const double next = last * n / (SAMPLES - 1), radius = fisheye_ ? next : std::tan(next);
      const double out = radius * radial(radius * radius);
      if (!(out > before)) return angle;
      before = out;
      angle = next;
    }
    return last;
  }

  double fx_, fy_, cx_, cy_;
  bool fisheye_;
  std::array<double, 8> k_{};
  double widest_ = 0;
};

struct View {
  Camera camera;
  Attitude attitude;
  double height_m;  // above ground

  // Right, down, forward of the camera to a point of the ground.
  Vector toward(double east_m, double north_m) const {
    const Vector d{east_m, north_m, -height_m};
    return {dot(d, attitude.right), dot(d, attitude.down), dot(d, attitude.forward)};
  }

  Pixel pixel_of(double east_m, double north_m) const {
    const Vector d = toward(east_m, north_m);
    return camera.project(d[0], d[1], d[2]);
  }
};

struct Image {
  int width, height;
  std::vector<std::uint8_t> rgb;  // rows from the top, three bytes a pixel

  double at(int x, int y, int channel) const {
    const auto row = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    return rgb[(row + static_cast<std::size_t>(x)) * 3 + static_cast<std::size_t>(channel)];
  }
};

struct Patch {
  Image image;
  std::vector<bool> seen;  // false: the photo does not show it, and it was filled in
};

// The mean of each `factor` x `factor` block; those at the right and lower edge may be smaller.
inline Image shrunk(const Image& photo, int factor) {
  if (factor == 1) return photo;
  Image small{(photo.width + factor - 1) / factor, (photo.height + factor - 1) / factor, {}};
  small.rgb.reserve(static_cast<std::size_t>(small.width) * static_cast<std::size_t>(small.height) * 3);
  for (int y = 0; y < small.height; ++y)
    for (int x = 0; x < small.width; ++x)
      for (int channel = 0; channel < 3; ++channel) {
        const int right = std::min(photo.width, (x + 1) * factor), below = std::min(photo.height, (y + 1) * factor);
        double sum = 0;
        for (int j = y * factor; j < below; ++j)
          for (int i = x * factor; i < right; ++i) sum += photo.at(i, j, channel);
        small.rgb.push_back(static_cast<std::uint8_t>(sum / ((right - x * factor) * (below - y * factor)) + 0.5));
      }
  return small;
}

// A coordinate folded into 0 to count - 1, the edge repeated once.
inline double mirrored(double at, int count) {
  if (!std::isfinite(at)) at = 0;
  double rest = std::fmod(at + 0.5, 2.0 * count);
  if (rest < 0) rest += 2.0 * count;
  return std::clamp(count - std::abs(rest - count) - 0.5, 0.0, count - 1.0);
}

inline double bilinear(const Image& image, double x, double y, int channel) {
  x = mirrored(x, image.width);
  y = mirrored(y, image.height);
  const int left = std::min(static_cast<int>(x), std::max(0, image.width - 2)), right = std::min(left + 1, image.width - 1);
  const int top = std::min(static_cast<int>(y), std::max(0, image.height - 2)), below = std::min(top + 1, image.height - 1);
  const double dx = x - left, dy = y - top;
  const double upper = image.at(left, top, channel) * (1 - dx) + image.at(right, top, channel) * dx;
  const double lower = image.at(left, below, channel) * (1 - dx) + image.at(right, below, channel) * dx;
  return upper * (1 - dy) + lower * dy;
}

// How many pixels of the photo one of the patch spans: the median of what is seen, 1 where nothing is.
inline double finer(const std::vector<Pixel>& at, int size) {
  std::vector<double> spans;
  for (int j = 0; j + 1 < size; ++j)
    for (int i = 0; i + 1 < size; ++i) {
      const std::size_t n = static_cast<std::size_t>(j) * static_cast<std::size_t>(size) + static_cast<std::size_t>(i);
      const Pixel &here = at[n], &right = at[n + 1], &below = at[n + static_cast<std::size_t>(size)];
      const double across = std::hypot(right.x - here.x, right.y - here.y), along = std::hypot(below.x - here.x, below.y - here.y);
      if (here.seen) spans.push_back(std::sqrt(across * along));
    }
  if (spans.empty()) return 1;
  std::sort(spans.begin(), spans.end());
  return (spans[(spans.size() - 1) / 2] + spans[spans.size() / 2]) / 2;
}

// The square of ground of `side_m` around (east_m, north_m), north up, `size` x `size` pixels. Where the photo is finer than
// the patch it is shrunk first, so that nothing is skipped. Ground beyond its edges is its mirror image, as in tiles at other
// headings; ground behind the camera is its mean colour. std::invalid_argument if the photo is not of the camera's size.
inline Patch render_patch(const Image& photo, const View& view, double east_m, double north_m, double side_m, int size) {
  if (photo.width != view.camera.width || photo.height != view.camera.height || size < 1)
    throw std::invalid_argument("the photo has not the size of the camera");
  std::vector<Pixel> at;
  std::vector<bool> behind, seen;
  for (int j = 0; j < size; ++j)
    for (int i = 0; i < size; ++i) {
      const double east = east_m + ((i + 0.5) / size - 0.5) * side_m, north = north_m - ((j + 0.5) / size - 0.5) * side_m;
      const Vector d = view.toward(east, north);
      at.push_back(view.pixel_of(east, north));
      behind.push_back(d[2] < 0.05 * std::sqrt(dot(d, d)));
      seen.push_back(at.back().seen);
    }
  const double most = std::min(photo.width, photo.height) / 2;
  const int factor = static_cast<int>(std::max(1.0, std::min(std::nearbyint(finer(at, size)), most)));
  const Image small = shrunk(photo, factor);
  Vector mean{};
  for (std::size_t n = 0; n < small.rgb.size(); ++n) mean[n % 3] += small.rgb[n] / (static_cast<double>(small.rgb.size()) / 3);
  Patch patch{{size, size, {}}, seen};
  for (std::size_t n = 0; n < at.size(); ++n)
    for (int channel = 0; channel < 3; ++channel) {
      const double x = (at[n].x + 0.5) / factor - 0.5, y = (at[n].y + 0.5) / factor - 0.5;
      const double level = behind[n] ? mean[static_cast<std::size_t>(channel)] : bilinear(small, x, y, channel);
      patch.image.rgb.push_back(static_cast<std::uint8_t>(std::nearbyint(level)));
    }
  return patch;
}

}  // namespace flightcache

// The counter floor, in files outside the cache (docs/manifest.md, steps 6 and 12; docs/trust.md, section 2).
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace floors {

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Accepted {
  std::int64_t counter = 0;
  std::string sha256;
  bool operator==(const Accepted& other) const { return counter == other.counter && sha256 == other.sha256; }
};

struct Floor {
  std::int64_t counter = 0;
  std::optional<std::string> sha256;  // of the Manifest.json that passed with exactly this counter, if it is known
  std::optional<Accepted> fallback;   // the one set below the floor that passes
};

inline std::string real(const std::string& path) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved)) return resolved;
  const std::size_t slash = path.rfind('/');  // the file may be missing, its directory not
  const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  if (!realpath(parent.c_str(), resolved)) return path;
  return std::string(resolved) + "/" + (slash == std::string::npos ? path : path.substr(slash + 1));
}

// The first bytes of a regular file, nothing of another; nullopt: it is not there.
inline std::optional<std::string> content(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::nullopt;
  if (fd < 0) throw Refused(path + ": " + std::strerror(errno));
  struct stat status {};
  char data[128];
  const ssize_t size = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? read(fd, data, sizeof data) : 0;
  close(fd);
  return std::string(data, size > 0 ? static_cast<std::size_t>(size) : 0);
}

inline std::optional<std::int64_t> number(const std::string& text, bool zero) {
  if (!manifest::digits(text) || text.size() > 16 || (text[0] == '0' && (text.size() > 1 || !zero))) return std::nullopt;
  return std::stoll(text);
}

// Numbers and, last, a SHA-256, one blank between them; nullopt: the file is not there.
inline std::optional<std::vector<std::string>> beside(const std::string& path, std::size_t fields) {
  auto text = content(path);
  if (!text) return std::nullopt;
  if (!text->empty() && text->back() == '\n') text->pop_back();
  std::vector<std::string> found;
  for (std::size_t at = 0; at <= text->size();) {
    const std::size_t blank = std::min(text->find(' ', at), text->size());
    found.push_back(text->substr(at, blank - at));
    at = blank + 1;
  }
  bool good = found.size() == fields && manifest::is_digest(found.back());
  for (std::size_t i = 0; good && i + 1 < fields; ++i) good = number(found[i], false).has_value();
  if (!good) throw Refused(path + ": does not hold a counter and a SHA-256");
  return found;
}

inline Floor read_floor(const std::string& path) {
  auto text = content(path);
  if (!text) throw Refused(path + ": there is no such file");
  if (!text->empty() && text->back() == '\n') text->pop_back();
  const auto counter = number(*text, true);
  if (!counter) throw Refused(path + ": does not hold one decimal number");
  Floor floor;
  floor.counter = *counter;
  const std::string place = real(path);
  if (const auto passed = beside(place + ".manifest", 2); passed && std::stoll((*passed)[0]) == *counter)
    floor.sha256 = (*passed)[1];
  if (const auto permitted = beside(place + ".fallback", 3); permitted && std::stoll((*permitted)[0]) == *counter)
    floor.fallback = Accepted{std::stoll((*permitted)[1]), (*permitted)[2]};
  return floor;
}

// A floor that travels with the cache would be rolled back with it.
inline bool is_inside(const std::string& path, const std::string& cache) {
  std::string root = real(cache);
  const std::size_t slash = root.rfind('/');
  const std::string parent = slash == std::string::npos ? "" : root.substr(0, slash);
  if (manifest::ends_with(parent, "/generations")) root = parent.substr(0, parent.rfind('/'));
  return root == "/" || real(path).compare(0, root.size() + 1, root + "/") == 0;
}

// Why a set with this counter and this SHA-256 of its Manifest.json is refused; empty: it is not.
inline std::string against(const Floor& floor, std::int64_t counter, const std::string& sha256) {
  if (counter < floor.counter && !(floor.fallback && *floor.fallback == Accepted{counter, sha256})) return "below the floor";
  if (counter == floor.counter && floor.sha256 && *floor.sha256 != sha256) return "another set with this counter has passed";
  return "";
}

inline void replace(const std::string& path, const std::string& data) {
  const std::size_t slash = path.rfind('/');
  const std::string temporary = path.substr(0, slash + 1) + "." + path.substr(slash + 1) + ".tmp";
  struct stat status {};
  if (lstat(temporary.c_str(), &status) == 0 && !S_ISLNK(status.st_mode)) unlink(temporary.c_str());  // never opened
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  bool done = fd >= 0 && write(fd, data.data(), data.size()) == static_cast<ssize_t>(data.size()) && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  done = done && rename(temporary.c_str(), path.c_str()) == 0;
  const int directory = open(path.substr(0, slash + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  done = done && directory >= 0 && fsync(directory) == 0;
  if (directory >= 0) close(directory);
  if (!done) throw Refused(path + ": cannot be raised: " + std::strerror(errno));
}

// Step 12: durably, under a lock on the directory, never downwards.
inline void raise_floor(const std::string& path, std::int64_t counter, const std::string& sha256) {
  const std::string place = real(path);
  const int lock = open(place.substr(0, place.rfind('/') + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0 || flock(lock, LOCK_EX) != 0) throw Refused(path + ": cannot be raised: " + std::strerror(errno));
  struct Unlock {
    int fd;
    ~Unlock() { close(fd); }
  } unlock{lock};
  const Floor now = read_floor(path);
  if (counter < now.counter) return;
  if (const std::string why = against(now, counter, sha256); !why.empty()) throw Refused(why);
  std::optional<Accepted> before = now.fallback;
  if (!before && now.sha256) before = Accepted{now.counter, *now.sha256};
  if (now.counter != counter && before)
    replace(place + ".previous", std::to_string(before->counter) + " " + before->sha256 + "\n");
  if (!now.sha256 || now.counter != counter) replace(place + ".manifest", std::to_string(counter) + " " + sha256 + "\n");
  if (now.counter != counter) replace(place, std::to_string(counter) + "\n");
}

}  // namespace floors

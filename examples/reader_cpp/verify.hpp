// The numbered steps of docs/manifest.md, section 5.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "floor.hpp"
#include "keys.hpp"
#include "manifest.hpp"
#include "trust.hpp"

namespace verify {

using manifest::Manifest;
using keys::fingerprint;
using keys::is_weak;
using keys::read_fingerprints;
using keys::verifies;
using manifest::Sha256;

struct Reason {
  std::string code, file, detail;
};

// std::nullopt: not checked, which the caller has to write.
struct Expectations {
  std::vector<std::string> keys;       // raw, 32 bytes; none beside a trust file
  std::optional<trust::Version> trust;  // the newest version of an installed trust file
  std::optional<std::set<std::string>> fingerprints;
  std::set<std::string> revoked;
  std::optional<std::optional<std::string>> flight_id, aircraft_id;  // outer: checked at all; inner: none expected
  std::map<std::string, std::string> host;                           // parts that are checked
  std::optional<std::int64_t> counter_floor;
  std::optional<std::string> floor_file;  // in place of a number; raised on PASS if raise_floor
  bool raise_floor = false;
  std::optional<std::int64_t> now_s;  // since 1970 UTC; nullopt: the clock of this computer
  bool no_clock = false;              // it has none: nothing expires
};

class Handle {
 public:
  explicit Handle(int number = -1) : fd(number) {}
  Handle(Handle&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~Handle() {
    if (fd >= 0) close(fd);
  }
  int get() const { return fd; }
  bool ok() const { return fd >= 0; }

 private:
  int fd;
};

struct Open {
  Handle fd;
  std::int64_t size = 0;
  struct timespec changed {};
};

class Verifier {
 public:
  Verifier(std::string directory, Expectations wanted) : cache(std::move(directory)), expect(std::move(wanted)) {}

  const std::vector<Reason>& run() {
    try {
      steps();
    } catch (const Refusal&) {
    } catch (const std::exception& error) {  // fail closed
      add("internal", "", error.what());
    }
    if (!reasons.empty()) opened.clear();
    passed = reasons.empty() && manifest.has_value();
    return reasons;
  }

  const Manifest& content() const { return manifest.value(); }

  // After PASS: the bytes of a listed file, hashed again as they are in memory; nullopt if they have changed.
  std::optional<std::string> read(const std::string& path) const {
    const auto found = opened.find(path);
    if (!passed || found == opened.end()) return std::nullopt;
    std::string data;
    if (!read_all(found->second.fd.get(), found->second.size, data)) return std::nullopt;
    const auto listed = std::find_if(manifest->files.begin(), manifest->files.end(),
                                     [&](const manifest::File& file) { return file.path == path; });
    if (Sha256::of(data) != listed->sha256) return std::nullopt;
    return data;
  }

 private:
  struct Refusal {};

  std::string cache;
  Expectations expect;
  std::vector<Reason> reasons;
  std::optional<Manifest> manifest;
  std::map<std::string, Open> opened;
  Handle root;
  dev_t device = 0;
  bool passed = false;

  static constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  static constexpr int kFile = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  static constexpr std::size_t kMaxReported = 100;
  static constexpr std::size_t kChunk = 1 << 20;

  // A missing file is met by the walk and by the opening: reported once. A Manifest can be wrong in several ways.
  void add(const std::string& code, const std::string& file, const std::string& detail) {
    for (const Reason& known : reasons)
      if (known.code == code && known.file == file && (file != "Manifest.json" || known.detail == detail)) return;
    reasons.push_back({code, file, detail});
  }
  [[noreturn]] void refuse(const std::string& code, const std::string& file, const std::string& detail) {
    add(code, file, detail);
    throw Refusal{};
  }

  void steps() {
    resolve();                                                                        // 1
    const auto data = read_small("Manifest.json", manifest::kMaxBytes);               // 2
    auto signature = read_small("Manifest.json.sig", 64);
    if (data) check_sidecar("Manifest.json", Sha256::of(*data));                      // 3
    if (signature && signature->size() != 64) {
      add("size", "Manifest.json.sig", "not 64 bytes");
      signature.reset();
    }
    if (!data || !signature) throw Refusal{};
    authenticate(*data, *signature);                                                  // 4
    try {
      manifest.emplace(*data);                                                        // 5
    } catch (const manifest::UnknownSchema& error) {
      refuse("schema", "Manifest.json", error.what());
    } catch (const json::Malformed& error) {
      refuse("malformed", "Manifest.json", error.what());
    }
    check_expectations(Sha256::of(*data));                                            // 6
    if (!manifest->origin_is_inside()) add("origin", "Manifest.json", "the take-off point is outside the area");  // 7
    if (Sha256::of(manifest->preimage()) != manifest->text({"build", "manifest_hash"}))
      add("manifest-hash", "Manifest.json", "not the recorded one");                  // 8
    walk();                                                                           // 9
    open_files();                                                                     // 10
    hash_files();                                                                     // 11
    if (reasons.empty() && expect.floor_file && expect.raise_floor) raise(Sha256::of(*data));  // 12
  }

  void raise(const std::string& sha256) {
    try {
      floors::raise_floor(*expect.floor_file, manifest->number({"build", "counter"}), sha256);
    } catch (const floors::Refused& refused) {
      add("floor", "", refused.what());
    }
  }

  // --- step 1 ---

  void resolve() {
    Handle top(open(cache.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!top.ok()) refuse("cache-unreadable", "", std::strerror(errno));
    struct stat found {};
    // First: in a generation `current` is an unlisted file, which must not lead to files other than the ones here.
    if (fstatat(top.get(), "Manifest.json", &found, AT_SYMLINK_NOFOLLOW) == 0) {
      root = std::move(top);
    } else {
      if (errno != ENOENT) refuse("cache-unreadable", "", std::strerror(errno));
      follow_current(top);
    }
    struct stat status {};
    if (fstat(root.get(), &status) != 0) refuse("cache-unreadable", "", std::strerror(errno));
    device = status.st_dev;
  }

  void follow_current(const Handle& top) {
    char target[64];
    const ssize_t size = readlinkat(top.get(), "current", target, sizeof target);
    if (size < 0 && errno == ENOENT) refuse("cache-unreadable", "", "neither `current` nor Manifest.json is here");
    const std::string text(target, size < 0 ? 0 : static_cast<std::size_t>(size));
    const std::string number = text.rfind("generations/", 0) == 0 ? text.substr(12) : "";
    if (!manifest::digits(number) || number.size() > 18) refuse("current-invalid", "current", "not generations/NUMBER");
    root = open_directory(top.get(), text);
    if (!root.ok()) refuse("current-invalid", "current", std::strerror(errno));
  }

  // Component by component, never through a link.
  static Handle open_directory(int from, const std::string& path) {
    Handle directory(openat(from, ".", kDirectory));
    for (std::size_t at = 0; directory.ok() && at < path.size();) {
      const std::size_t slash = std::min(path.find('/', at), path.size());
      directory = Handle(openat(directory.get(), path.substr(at, slash - at).c_str(), kDirectory));
      at = slash + 1;
    }
    return directory;
  }

  // --- opening and reading files ---

  bool is_plain(const struct stat& status, const std::string& path) {
    if (S_ISLNK(status.st_mode))
      add("symlink", path, "a symbolic link");
    else if (!S_ISREG(status.st_mode))
      add("not-a-file", path, "not a regular file");
    else if (status.st_dev != device)
      add("other-file-system", path, "on another file system");
    else
      return true;
    return false;
  }

  std::optional<Open> open_file(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string parent = slash == std::string::npos ? "" : path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    const Handle directory = open_directory(root.get(), parent);
    if (!directory.ok()) {
      add(errno == ENOENT ? "missing" : "not-a-file", path, "its directory is no directory");
      return std::nullopt;
    }
    struct stat status {};
    if (fstatat(directory.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return failed(path);
    if (!is_plain(status, path)) return std::nullopt;  // looked at first: opening a device can have an effect
    Open file{Handle(openat(directory.get(), name.c_str(), kFile)), 0, {}};
    if (!file.fd.ok() || fstat(file.fd.get(), &status) != 0) return failed(path);
    if (!is_plain(status, path)) return std::nullopt;
    file.size = status.st_size;
    file.changed = status.st_mtim;
    return file;
  }

  std::nullopt_t failed(const std::string& path) {
    add(errno == ENOENT ? "missing" : "unreadable", path, std::strerror(errno));
    return std::nullopt;
  }

  static bool read_all(int fd, std::int64_t size, std::string& data) {
    data.resize(static_cast<std::size_t>(size));
    for (std::int64_t at = 0; at < size;) {
      const ssize_t count = pread(fd, &data[static_cast<std::size_t>(at)], static_cast<std::size_t>(size - at), at);
      if (count <= 0) return false;
      at += count;
    }
    return true;
  }

  std::optional<std::string> read_small(const std::string& path, std::size_t most) {
    const auto file = open_file(path);
    if (!file) return std::nullopt;
    if (file->size > static_cast<std::int64_t>(most)) {
      add("size", path, "larger than " + std::to_string(most) + " bytes");
      return std::nullopt;
    }
    std::string data;
    if (!read_all(file->fd.get(), file->size, data)) {
      add("changed", path, "changed while it was read");
      return std::nullopt;
    }
    return data;
  }

  void check_sidecar(const std::string& path, const std::string& sha256) {
    const auto sidecar = read_small(path + ".sha256", 65);
    if (sidecar && *sidecar != sha256 + "\n") add("sidecar", path + ".sha256", "does not hold the digest");
  }

  // --- steps 4 and 6 ---

  // Further signatures, one behind the other; empty if there is no such file.
  std::string read_more() {
    struct stat status {};
    if (fstatat(root.get(), "Manifest.json.sigs", &status, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) return "";
    const auto more = read_small("Manifest.json.sigs", 16 * 64);
    if (!more) throw Refusal{};
    if (more->empty() || more->size() % 64) refuse("size", "Manifest.json.sigs", "not a multiple of 64 bytes");
    return *more;
  }

  void authenticate(const std::string& data, const std::string& signature) {
    const std::string signatures = signature + read_more();
    const std::vector<std::string> trusted = trusted_keys();
    for (const std::string& key : trusted)
      if (is_weak(key)) refuse("key-weak", "", fingerprint(key));
    std::vector<std::string> signers;  // each once, in the order of the signatures
    for (std::size_t at = 0; at < signatures.size(); at += 64)
      for (const std::string& key : trusted)
        if (std::find(signers.begin(), signers.end(), key) == signers.end() && verifies(key, signatures.substr(at, 64), data))
          signers.push_back(key);
    if (signers.empty()) refuse("signature", "Manifest.json.sig", "by no trusted key");
    std::vector<Reason> against;
    std::size_t counted = 0;
    for (const std::string& key : signers) {
      const char* code = refused(key);
      if (code == nullptr)
        ++counted;
      else
        against.push_back({code, "Manifest.json.sig", fingerprint(key)});
    }
    if (counted == 0) refuse(against[0].code, against[0].file, against[0].detail);
    if (counted < static_cast<std::size_t>(expect.trust ? expect.trust->signing_threshold : 1))
      refuse("threshold", "Manifest.json.sig", "signed by too few keys");
  }

  std::vector<std::string> trusted_keys() {
    if (!expect.trust) return expect.keys;
    if (!expect.keys.empty()) refuse("trust", "", "keys are given beside the trust file that names them");
    if (!expect.no_clock && !expect.trust->not_after.empty() && now() > expect.trust->not_after)
      refuse("trust", "", "the trust file ends at " + expect.trust->not_after);
    std::vector<std::string> raw;
    for (const trust::Key& key : expect.trust->keys)
      if (key.role == "signing") raw.push_back(key.raw);
    return raw;
  }

  // Why a key that signed does not count; nullptr if it does.
  const char* refused(const std::string& key) {
    std::set<std::string> revoked = expect.revoked;
    if (expect.trust) revoked.insert(expect.trust->revoked.begin(), expect.trust->revoked.end());
    if (among(keys::digests(key), revoked, "key-revoked")) return "key-revoked";
    if (expect.fingerprints && !among({fingerprint(key)}, *expect.fingerprints, "key-not-allowed")) return "key-not-allowed";
    if (expect.trust && !expect.no_clock)
      for (const trust::Key& each : expect.trust->keys)
        if (each.raw == key && !each.not_after.empty() && now() > each.not_after) return "key-expired";
    return nullptr;
  }

  std::string now() {
    // A year of five digits would, as text, come before every not_after.
    constexpr long long kLastSecond = 253402300799;  // 9999-12-31T23:59:59Z
    const std::time_t now_s = static_cast<std::time_t>(std::min<long long>(expect.now_s.value_or(std::time(nullptr)), kLastSecond));
    std::tm utc{};
    char text[32];
    if (!gmtime_r(&now_s, &utc) || std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
      refuse("internal", "", "no time");
    return text;
  }

  bool among(const std::set<std::string>& who, const std::set<std::string>& texts, const char* code) {
    bool found = false;
    for (const std::string& text : texts) {
      const auto read = read_fingerprints(text);
      if (!read) refuse(code, "", "not a fingerprint: " + text);
      for (const std::string& each : *read) found = found || who.count(each) > 0;
    }
    return found;
  }

  void check_floor(const std::string& sha256) {
    try {
      if (floors::is_inside(*expect.floor_file, cache)) throw floors::Refused("the floor is inside the cache directory");
      const std::string why =
          floors::against(floors::read_floor(*expect.floor_file), manifest->number({"build", "counter"}), sha256);
      if (!why.empty()) add("counter", "Manifest.json", why);
    } catch (const floors::Refused& refused) {
      add("floor", "", refused.what());
    }
  }

  void check_expectations(const std::string& sha256) {
    if (expect.floor_file) check_floor(sha256);
    const auto identity = [this](const char* code, const char* key, const auto& wanted) {
      if (!wanted) return;
      const auto* found = manifest->maybe({"flight"}, key);
      if (found ? *wanted != found->text : wanted->has_value()) add(code, "Manifest.json", "another one");
    };
    identity("flight", "flight_id", expect.flight_id);
    identity("aircraft", "aircraft_id", expect.aircraft_id);
    for (const auto& [part, wanted] : expect.host)
      if (manifest->text({"host", part.c_str()}) != wanted) add("host", "Manifest.json", part);
    const auto* until = manifest->maybe({"flight"}, "not_after");
    if (until && !expect.no_clock && now() > until->text)
      add("expired", "Manifest.json", "not to be flown after " + until->text);
    if (expect.counter_floor && manifest->number({"build", "counter"}) < *expect.counter_floor)
      add("counter", "Manifest.json", "below the floor");
  }

  // --- step 9 ---

  void walk() {
    std::set<std::string> expected{"Manifest.json", "Manifest.json.sha256", "Manifest.json.sig"};
    std::set<std::string> directories;
    for (const auto& file : manifest->files) {
      expected.insert({file.path, file.path + ".sha256"});
      for (std::size_t slash = file.path.find('/'); slash != std::string::npos; slash = file.path.find('/', slash + 1))
        directories.insert(file.path.substr(0, slash));
    }
    std::set<std::string> seen;
    std::size_t unlisted = 0;
    std::vector<std::string> todo(directories.begin(), directories.end());
    todo.insert(todo.begin(), "");
    for (const std::string& directory : todo)
      if (!list(directory, expected, directories, seen, unlisted)) return;
    for (const std::string& path : expected)
      if (!seen.count(path)) add("missing", path, "there is no such file");
  }

  // false: too many unlisted files, the walk stops
  bool list(const std::string& directory, const std::set<std::string>& expected,
            const std::set<std::string>& directories, std::set<std::string>& seen, std::size_t& unlisted) {
    Handle handle = open_directory(root.get(), directory);
    if (!handle.ok()) return true;  // what it should hold is missing
    std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(dup(handle.get())), closedir);
    while (const dirent* entry = entries ? readdir(entries.get()) : nullptr) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      const std::string path = directory.empty() ? name : directory + "/" + name;
      struct stat status {};
      if (fstatat(handle.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (directories.count(path) && S_ISDIR(status.st_mode)) continue;
      if (expected.count(path) || path == "Manifest.json.sigs") {
        seen.insert(path);
        is_plain(status, path);
      } else if (directories.count(path) && S_ISLNK(status.st_mode)) {
        add("symlink", path, "in place of a directory");
      } else if (unlisted++ < kMaxReported) {
        add("unlisted", path, "not listed in the Manifest");
      } else {
        add("unlisted", "", "and more");
        return false;
      }
    }
    return true;
  }

  // --- steps 10 and 11 ---

  void open_files() {
    for (const auto& listed : manifest->files) {
      auto file = open_file(listed.path);
      if (!file) continue;
      check_sidecar(listed.path, listed.sha256);
      if (file->size != listed.bytes) add("size", listed.path, "not the listed size");
      opened.emplace(listed.path, std::move(*file));
    }
  }

  void hash_files() {
    std::vector<const manifest::File*> queue;
    for (const auto& file : manifest->files) {
      const auto found = opened.find(file.path);
      if (found != opened.end() && found->second.size == file.bytes) queue.push_back(&file);
    }
    std::sort(queue.begin(), queue.end(), [](const auto* a, const auto* b) { return a->bytes > b->bytes; });
    std::vector<std::string> found(queue.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&]() noexcept {  // what a thread does not finish is a reason below, never a crash at take-off
      try {
        std::vector<unsigned char> buffer(kChunk);
        for (std::size_t i = next++; i < queue.size(); i = next++)
          found[i] = digest(opened.at(queue[i]->path), buffer);
      } catch (const std::exception&) {
      }
    };
    std::vector<std::thread> helpers;
    try {
      for (unsigned n = 1; n < std::min<std::size_t>(std::thread::hardware_concurrency(), queue.size()); ++n)
        helpers.emplace_back(work);
    } catch (const std::exception&) {  // a limit of threads or memory: fewer of them, at least this one
    }
    work();
    for (std::thread& helper : helpers) helper.join();
    for (std::size_t i = 0; i < queue.size(); ++i) judge(*queue[i], found[i]);
  }

  static std::string digest(const Open& file, std::vector<unsigned char>& buffer) {
    Sha256 sha256;
    for (std::int64_t at = 0; at < file.size;) {
      const auto want = std::min<std::int64_t>(static_cast<std::int64_t>(buffer.size()), file.size - at);
      const ssize_t count = pread(file.fd.get(), buffer.data(), static_cast<std::size_t>(want), at);
      if (count < 0) return "unreadable";
      if (count == 0) break;
      sha256.update(buffer.data(), static_cast<std::size_t>(count));
      at += count;
    }
    return sha256.hex();
  }

  void judge(const manifest::File& listed, const std::string& found) {
    const Open& file = opened.at(listed.path);
    struct stat status {};
    if (found.empty())
      add("internal", listed.path, "was not hashed");
    else if (found == "unreadable" || fstat(file.fd.get(), &status) != 0)
      add("unreadable", listed.path, "I/O error");
    else if (found != listed.sha256)
      add("digest", listed.path, found);
    else if (status.st_size != file.size || status.st_mtim.tv_sec != file.changed.tv_sec ||
             status.st_mtim.tv_nsec != file.changed.tv_nsec)
      add("changed", listed.path, "changed while it was hashed");
  }
};

}  // namespace verify

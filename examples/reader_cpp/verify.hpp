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

#include "manifest.hpp"

namespace verify {

using manifest::Manifest;
using manifest::Sha256;

struct Reason {
  std::string code, file, detail;
};

// std::nullopt: not checked, which the caller has to write.
struct Expectations {
  std::vector<std::string> keys;  // raw, 32 bytes
  std::optional<std::set<std::string>> fingerprints;
  std::set<std::string> revoked;
  std::optional<std::optional<std::string>> flight_id, aircraft_id;  // outer: checked at all; inner: none expected
  std::map<std::string, std::string> host;                           // parts that are checked
  std::optional<std::int64_t> counter_floor;
  std::optional<std::int64_t> now_s;  // since 1970 UTC; nullopt: the clock of this computer
};

// The one form of a fingerprint: 64 lower-case digits. Read as the same: capitals, colons and blanks between the digits,
// `sha256:` before them. nullopt: not a fingerprint, so nobody knows whom it is about.
inline std::optional<std::string> read_fingerprint(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  std::string digits;
  const std::size_t start = std::find_if_not(text.begin(), text.end(), blank) - text.begin();
  const std::string folded = manifest::lower(text.substr(start));
  for (const char c : folded.rfind("sha256:", 0) == 0 ? folded.substr(7) : folded)
    if (c != ':' && !blank(c)) digits += c;
  if (!manifest::is_digest(digits)) return std::nullopt;
  return digits;
}

// One fingerprint, or several with commas between them; nullopt if one of them is none.
inline std::optional<std::set<std::string>> read_fingerprints(const std::string& text) {
  std::set<std::string> found;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const auto one = read_fingerprint(text.substr(at, comma - at));
    if (!one) return std::nullopt;
    found.insert(*one);
    at = comma + 1;
  }
  return found;
}

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

inline std::string fingerprint(const std::string& key) { return Sha256::of(key); }

// Small order, or y not below 2^255 - 19 (section 6). Little-endian, without the sign bit.
inline bool is_weak(std::string key) {
  if (key.size() != 32) return true;
  key[31] = static_cast<char>(key[31] & 0x7F);
  static const char* const kSmall[] = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"};
  const std::string hex = Sha256::to_hex(reinterpret_cast<const unsigned char*>(key.data()), key.size());
  if (std::find(std::begin(kSmall), std::end(kSmall), hex) != std::end(kSmall)) return true;
  const std::string rest = hex.substr(2, 60);
  return static_cast<unsigned char>(key[0]) >= 0xED && rest == std::string(60, 'f') && hex.substr(62) == "7f";
}

inline bool verifies(const std::string& key, const std::string& signature, const std::string& data) {
  const auto* raw = reinterpret_cast<const unsigned char*>(key.data());
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw, key.size()), EVP_PKEY_free);
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  return pkey && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
         EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                          reinterpret_cast<const unsigned char*>(data.data()), data.size()) == 1;
}

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

  // A missing file is met by the walk and by the opening: told once. A Manifest can be wrong in several ways.
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
    check_expectations();                                                             // 6
    if (!manifest->origin_is_inside()) add("origin", "Manifest.json", "the take-off point is outside the area");  // 7
    if (Sha256::of(manifest->preimage()) != manifest->text({"build", "manifest_hash"}))
      add("manifest-hash", "Manifest.json", "not the recorded one");                  // 8
    walk();                                                                           // 9
    open_files();                                                                     // 10
    hash_files();                                                                     // 11
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

  void authenticate(const std::string& data, const std::string& signature) {
    for (const std::string& key : expect.keys)
      if (is_weak(key)) refuse("key-weak", "", fingerprint(key));
    const auto signer = std::find_if(expect.keys.begin(), expect.keys.end(),
                                     [&](const std::string& key) { return verifies(key, signature, data); });
    if (signer == expect.keys.end()) refuse("signature", "Manifest.json.sig", "by no trusted key");
    const std::string who = fingerprint(*signer);
    if (among(who, expect.revoked, "key-revoked")) refuse("key-revoked", "Manifest.json.sig", who);
    if (expect.fingerprints && !among(who, *expect.fingerprints, "key-not-allowed"))
      refuse("key-not-allowed", "Manifest.json.sig", who);
  }

  bool among(const std::string& who, const std::set<std::string>& texts, const char* code) {
    bool found = false;
    for (const std::string& text : texts) {
      const auto read = read_fingerprints(text);
      if (!read) refuse(code, "", "not a fingerprint: " + text);
      found = found || read->count(who) > 0;
    }
    return found;
  }

  void check_expectations() {
    const auto identity = [this](const char* code, const char* key, const auto& wanted) {
      if (!wanted) return;
      const auto* found = manifest->maybe({"flight"}, key);
      if (found ? *wanted != found->text : wanted->has_value()) add(code, "Manifest.json", "another one");
    };
    identity("flight", "flight_id", expect.flight_id);
    identity("aircraft", "aircraft_id", expect.aircraft_id);
    for (const auto& [part, wanted] : expect.host)
      if (manifest->text({"host", part.c_str()}) != wanted) add("host", "Manifest.json", part);
    const std::time_t now_s = static_cast<std::time_t>(expect.now_s.value_or(std::time(nullptr)));
    std::tm utc{};
    char now[32];
    if (!gmtime_r(&now_s, &utc) || std::strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
      refuse("internal", "", "no time");
    const auto* until = manifest->maybe({"flight"}, "not_after");
    if (until && now > until->text) add("expired", "Manifest.json", "not to be flown after " + until->text);
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
      if (expected.count(path)) {
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

// What the accesses to registers tell. A read names the write it saw; which versions follow which is given, or known
// from transactions that read a register and then wrote it, or (if time counts) from transactions that ended before
// others began.
#include <string>

#include "history/explain.h"
#include "history/findings.h"

namespace kelda::history {

namespace {

class RegisterCheck {
 public:
  RegisterCheck(const HistoryIndex& index, const CheckOptions& options, Findings& findings, Facts& facts)
      : index_(index),
        options_(options),
        findings_(findings),
        facts_(facts),
        views_(index.keys().size()),
        touches_(index.keys().size()),
        found_(index.keys().size()) {}

  void run() {
    const auto& transactions = index_.history().transactions;
    for (txn_ = 0; txn_ < transactions.size(); ++txn_) {
      if (!index_.counts(txn_)) continue;
      const auto& ops = transactions[txn_].ops;
      for (op_ = 0; op_ < ops.size(); ++op_) {
        if (ops[op_].of_list()) continue;
        key_ = index_.key_of(ops[op_]);
        if (views_[key_].txn != txn_) {
          views_[key_] = View{txn_};
          touches_[key_].push_back({transactions[txn_].begin, transactions[txn_].end, kNone, kNone});
        }
        ops[op_].writes() ? write(ops[op_]) : read(ops[op_]);
      }
    }
    for (key_ = 0; key_ < index_.keys().size(); ++key_) {
      if (!index_.keys()[key_].is_list) add_successions();
    }
  }

 private:
  // What a transaction knows of a key so far.
  struct View {
    TxnIndex txn = kNone;
    VersionIndex current = kNone;  // kNone: nothing, or it was a value that should not be there
    bool wrote = false;
  };
  // The first and the last version of the key that a transaction read or wrote.
  struct Touch {
    Time begin, end;
    VersionIndex first, last;
  };

  template <class... More>
  void report(Anomaly anomaly, const std::string& what, More... concerned_transactions) {
    const std::vector<TxnIndex> concerned{concerned_transactions...};
    findings_.add(anomaly, Order::kData, concerned, [&] { return describe(index_, what, concerned); });
  }
  std::string key_name() const { return describe_key(index_.keys()[key_].name); }

  void touch(VersionIndex v) {
    Touch& touch = touches_[key_].back();
    if (touch.first == kNone) touch.first = v;
    touch.last = v;
  }

  void write(const Op& op) {
    View& view = views_[key_];
    const VersionIndex v = index_.version_written(op);
    if (view.current != kNone && (view.wrote || options_.writes_follow_reads))
      found_[key_].push_back({view.current, v, false});
    if (view.current != kNone && !view.wrote) facts_.replaced.push_back({view.current, txn_, op_});
    view.current = v;
    view.wrote = true;
    touch(v);
  }

  void read(const Op& op) {
    View& view = views_[key_];
    VersionIndex v = index_.keys()[key_].initial;
    if (!op.values.empty()) v = index_.find(key_, op.values[0]);
    if (v == kNone) {
      report(Anomaly::kGarbageRead,
             key_name() + " was read as " + std::to_string(op.values[0]) + ", which nobody wrote", txn_);
      view.current = kNone;
      return;
    }
    const Version& version = index_.version(v);
    const bool own = version.writer == txn_;
    if (own && version.op > op_) {
      report(Anomaly::kInternal, key_name() + " was read with a value that the same transaction wrote later", txn_);
      view.current = kNone;
      return;
    }
    if (view.current != kNone && view.current != v) {
      report(Anomaly::kInternal, "a read of " + key_name() + " contradicts what the transaction read or wrote before",
             txn_);
    }
    if (!own && !version.initial()) {
      if (index_.aborted(version.writer)) {
        report(Anomaly::kG1a, describe_version(index_, v) + " was read but its writer had aborted", version.writer,
               txn_);
        view.current = kNone;
        return;
      }
      if (!version.last_of_writer) {
        report(Anomaly::kG1b, describe_version(index_, v) + " was read but was not its writer's last", version.writer,
               txn_);
      }
    }
    if (!own) facts_.reads.push_back({v, txn_, op_});
    view.current = v;
    touch(v);
  }

  void add_successions() {
    const auto& given = index_.history().version_orders;
    const auto order = given.find(index_.keys()[key_].name);
    if (order != given.end()) {
      add_given(order->second);
      return;
    }
    auto& found = found_[key_];
    std::ranges::sort(found);
    const auto repeated = std::ranges::unique(found);
    found.erase(repeated.begin(), repeated.end());
    if (cyclic(found)) return;
    facts_.successions.insert(facts_.successions.end(), found.begin(), found.end());
    follow_initial(found);
    if (options_.real_time_order) add_by_time();
  }

  void add_given(const std::vector<Value>& values) {
    VersionIndex last = index_.keys()[key_].initial;
    std::vector<VersionIndex> known;
    for (const Value value : values) {
      const VersionIndex v = index_.find(key_, value);
      if (v == kNone) {
        report(Anomaly::kGarbageRead,
               "the order of " + key_name() + " holds " + std::to_string(value) + ", which nobody wrote");
        continue;
      }
      if (index_.aborted(index_.version(v).writer)) {
        report(Anomaly::kDirtyWrite, describe_version(index_, v) + " is in the key's order but its writer had aborted",
               index_.version(v).writer);
        continue;
      }
      facts_.successions.push_back({last, v, false});
      known.push_back(v);
      last = v;
    }
    std::ranges::sort(known);
    for (const VersionIndex v : index_.keys()[key_].written) {
      if (!index_.counts(index_.version(v).writer) || std::ranges::binary_search(known, v)) continue;
      report(Anomaly::kIncompatibleOrder, describe_version(index_, v) + " was committed and is not in the key's order",
             index_.version(v).writer);
    }
  }

  // Kahn's algorithm: what cannot be taken away from the front lies on a cycle or behind one.
  bool cyclic(const std::vector<Succession>& found) {
    std::unordered_map<VersionIndex, std::size_t> predecessors;
    for (const Succession& s : found) ++predecessors[s.after];
    std::vector<VersionIndex> ready;
    for (const Succession& s : found) {
      if (!predecessors.contains(s.before)) ready.push_back(s.before);
    }
    std::size_t taken = 0;
    const auto repeated = std::ranges::unique(ready);
    ready.erase(repeated.begin(), repeated.end());
    while (!ready.empty()) {
      const VersionIndex v = ready.back();
      ready.pop_back();
      for (const Succession& s : std::ranges::equal_range(found, v, {}, &Succession::before)) {
        ++taken;
        if (--predecessors[s.after] == 0) ready.push_back(s.after);
      }
    }
    if (taken == found.size()) return false;
    std::vector<TxnIndex> concerned;
    for (const Succession& s : found) {
      const TxnIndex writer = index_.version(s.after).writer;
      if (predecessors[s.after] > 0 && writer != kNone && concerned.size() < 8) concerned.push_back(writer);
    }
    findings_.add(Anomaly::kIncompatibleOrder, Order::kData, concerned, [&] {
      return describe(index_, "the versions of " + key_name() + " follow each other in a circle", concerned);
    });
    return true;
  }

  // The initial version comes before all: enough to say so of those that nothing else is known to precede.
  void follow_initial(const std::vector<Succession>& found) {
    std::vector<VersionIndex> preceded;
    for (const Succession& s : found) preceded.push_back(s.after);
    std::ranges::sort(preceded);
    for (const VersionIndex v : index_.keys()[key_].written) {
      if (!index_.counts(index_.version(v).writer) || std::ranges::binary_search(preceded, v)) continue;
      facts_.successions.push_back({index_.keys()[key_].initial, v, false});
    }
  }

  void add_by_time() {
    std::erase_if(touches_[key_], [](const Touch& touch) { return touch.first == kNone; });
    for_each_in_time(touches_[key_], [&](const Touch& before, const Touch& after) {
      if (before.last != after.first && !index_.version(after.first).initial()) {
        facts_.successions.push_back({before.last, after.first, true});
      }
    });
  }

  const HistoryIndex& index_;
  const CheckOptions& options_;
  Findings& findings_;
  Facts& facts_;
  std::vector<View> views_;  // by key, as are the next two
  std::vector<std::vector<Touch>> touches_;
  std::vector<std::vector<Succession>> found_;  // from reads and writes
  TxnIndex txn_ = 0;
  std::uint32_t op_ = 0;
  KeyIndex key_ = 0;
};

}  // namespace

void check_registers(const HistoryIndex& index, const CheckOptions& options, Findings& findings, Facts& facts) {
  RegisterCheck(index, options, findings, facts).run();
}

}  // namespace kelda::history

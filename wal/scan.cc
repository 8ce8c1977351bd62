// Reading a log without changing anything.

#include "wal/batch_reader.h"
#include "wal/log.h"
#include "wal/merge.h"

namespace kelda::wal {

Result<LogScanReport> scan_log(blockdev::BlockDevice& device, const disk::Superblock& superblock) {
  BatchReader reader(device, superblock.layout(), superblock.checkpoint());
  LogScanReport report;
  const auto visit = [&](const RecordView& record) -> Result<> {
    if (report.records++ == 0) report.first = record.lsn();
    report.last = record.lsn();
    return {};
  };
  const auto on_batch = [](std::span<const RecordView>) {};
  TRY(for_each_record(reader, superblock.checkpoint().redo_lsn, visit, on_batch));
  report.batches = reader.batches_read();
  report.bytes = reader.bytes_read();
  report.ends_torn = reader.ends_torn();
  if (report.records == 0 && superblock.checkpoint().redo_lsn > Lsn{1}) {
    return Error(Code::kCorrupt, "the log is damaged: the last checkpoint's record " +
                                     std::to_string(superblock.checkpoint().redo_lsn.value) + " is not there");
  }
  return report;
}

}  // namespace kelda::wal
